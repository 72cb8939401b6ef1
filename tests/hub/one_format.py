"""Quantisation formats here, with the packages that are there: `python -m tests.hub.one_format FOLDER NAME ...`.

Writes small checkpoints in each, loads them by the engine's own way, and compares what is said over pages, with
pictures that come in mid-reply, with what the library's own model of the same weights says. Prints one JSON object.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.loading.forecast import forecast
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.errors import ModelError
from penstock.streams.requests.request import Request, SamplingParams

from tests.engine.acts import Client
from tests.engine.rig import Rig
from tests.engine.test_oracle1 import REPLY, generated, image, short_sound, stock, turn
from tests.fixtures.recipe import model_path
from tests.hub import written
from tests.hub.formats import FAMILIES
from tests.reference.dense import forward

MODELS = {"words": ("text", "text"), "pictures": ("qwen2_5_vl", "image")}
SOUND = ("omni", "qwen3_omni")


def main(name: str, folder: Path) -> dict[str, Any]:
    """What there is to say of the format: `written`, the library's words where it cannot write one; and of each model
    `error`, the engine's refusal, or `gap` and `cost`, the errors of the logits as in `compared`. Of each family by
    name, where both of these models run: the same for its towers in floats, and in the format."""
    told: dict[str, Any] = {}
    folder.mkdir(exist_ok=True)
    for kind, (model, medium) in MODELS.items():
        told[kind] = one(name, folder / kind, model, medium)
    if all(told[kind].get("cost") for kind in MODELS):
        for model in FAMILIES:
            told[model] = [one(name, folder / f"{model}{towers}", model, "image", towers) for towers in (False, True)]
    return told


def one(name: str, folder: Path, model: str, medium: str, towers: bool = False) -> dict[str, Any]:
    """One model in the format."""
    found: dict[str, Any] = {}
    folder.mkdir()
    source, into = written.even(model_path(model), folder / "floats"), folder / "model"
    try:
        if name in written.LIBRARY or name in written.PACKED:
            written.write(name, source, into, towers)
        else:
            written.declare(name, source, into)
    except Exception as error:  # whatever the library raises
        found["unwritten"] = _line(error)
        if towers:  # what is said of the name alone is known
            return found
        written.declare(name, source, into)
    try:
        loaded = load(into, EngineConfig(dtype="auto"))
    except ModelError as error:
        return found | {"error": str(error).removeprefix(f"{into}: ")}
    try:
        return found | compared(loaded, into, source, medium, model in SOUND)
    except Exception as error:  # what the library's kernels raise over shapes that they do not take
        return found | {"failed": _line(error)}


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def compared(loaded: Any, folder: Path, source: Path, medium: str, hears: bool = False) -> dict[str, Any]:
    """`gap`: how far our logits are from those of the library's model, the farther of one dense forward over a stream
    and one shot, `cost`: how far those of that forward are from the ones of the model in floats; all the root mean
    square, in standard deviations. `same`: how many tokens of the one shot are the library's, of how many."""
    model, plain = written.library_model(folder, loaded.dtype), written.library_model(source)
    processor = written.processor(source)
    rig = Rig(loaded, page_tokens=4)
    client = Client(rig.open(format="live", video_fps=2.0))
    client.do(medium)
    client.do("sound", 3) if hears else None
    client.do("ask", max_tokens=12)
    rig.step(4)
    client.do(medium, 1)
    rig.run()
    session = client.session
    sequence = session.expected(model, processor)
    session.check_places(sequence)
    rows = [sequence.marks[place][0] - 1 for place in session.story.tokens()]
    ours = torch.stack([session.draws[row][1] for row in rows]).float()
    theirs, floats = (forward(one, sequence)[rows].float() for one in (model, plain))
    layers = [layer for layer in loaded.text.modules() if hasattr(layer, "in_features")]
    told = {
        "gap": _far(ours, theirs),
        "cost": _far(theirs, floats),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "layer": _kind(layers[0]),
        "fast": loaded.fast is not None,
        "bytes": weight_bytes(loaded),
        "planned": forecast(folder, EngineConfig(dtype="auto")).memory.weight_bytes,
        "floats": weight_bytes(load(source, EngineConfig())),
    }
    return told if medium == "text" else told | one_shot(loaded, model, processor, told["gap"], hears)


def one_shot(loaded: Any, model: Any, processor: Any, gap: float, hears: bool) -> dict[str, Any]:
    """`gap` and `same` with one shot."""
    media: list[Any] = [("image", image), *([("audio", short_sound)] if hears else [])]
    messages = [turn(*media, "What do you see?")]
    request = Request(messages=messages, positions="transformers", params=SamplingParams(max_tokens=REPLY))
    (said, logits, _), (expected, theirs) = generated(loaded, request), stock(model, processor, messages)
    same = next((place for place, pair in enumerate(zip(said, expected, strict=True)) if pair[0] != pair[1]), REPLY)
    shared = slice(min(same + 1, REPLY))  # behind another token other logits stand
    far = _far(torch.stack(logits)[shared].float(), theirs[shared].float())
    return {"gap": max(gap, far), "same": [same, REPLY]}


def _far(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).pow(2).mean().sqrt() / theirs.std())


def _kind(layer: Any) -> str:
    weight = getattr(layer, "weight", None)
    inner = type(weight.data).__name__ if isinstance(weight, torch.nn.Parameter) else type(weight).__name__
    dtype = str(getattr(weight, "dtype", "")).removeprefix("torch.")
    return f"{type(layer).__name__} ({inner} {dtype})"


if __name__ == "__main__":
    hf.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    folder, *names = sys.argv[1:]
    sys.stdout.write(json.dumps({name: main(name, Path(folder) / name) for name in names}) + "\n")
