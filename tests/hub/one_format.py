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

from tests.engine.acts import Client
from tests.engine.rig import Rig
from tests.fixtures.recipe import model_path
from tests.hub import written
from tests.reference.dense import forward

MODELS = {"words": ("text", "text"), "pictures": ("qwen2_5_vl", "image")}


def main(name: str, folder: Path) -> dict[str, Any]:
    """What there is to say of the format: `written`, the library's words where it cannot write one; and of each model
    `error`, the engine's refusal, or `gap` and `cost`, the errors of the logits as in `_compared`."""
    told: dict[str, Any] = {}
    for kind, (model, medium) in MODELS.items():
        told[kind] = found = {}
        folder.mkdir(exist_ok=True)
        source, into = written.even(model_path(model), folder / f"{kind} in floats"), folder / kind
        try:
            if name in written.LIBRARY or name in written.PACKED:
                written.write(name, source, into)
            else:
                written.declare(name, source, into)
        except Exception as error:  # whatever the library raises
            found["unwritten"] = _line(error)
            written.declare(name, source, into)
        try:
            loaded = load(into, EngineConfig(dtype="auto"))
        except ModelError as error:
            found["error"] = str(error).removeprefix(f"{into}: ")
            continue
        try:
            found |= _compared(loaded, into, source, medium)
        except Exception as error:  # what the library's kernels raise over shapes that they do not take
            found["failed"] = _line(error)
    return told


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _compared(loaded: Any, folder: Path, source: Path, medium: str) -> dict[str, Any]:
    """`gap`: how far our logits are from those of the library's model in one dense forward, `cost`: how far those are
    from the ones of the model in floats; both the root mean square, in standard deviations."""
    model = written._class(folder).from_pretrained(folder, dtype=loaded.dtype)
    plain = written._class(source).from_pretrained(source)
    processor = (hf.AutoProcessor if medium == "image" else hf.AutoTokenizer).from_pretrained(source)
    rig = Rig(loaded, page_tokens=4)
    client = Client(rig.open(format="live", video_fps=2.0))
    client.do(medium)
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
    return {
        "gap": float((ours - theirs).pow(2).mean().sqrt() / theirs.std()),
        "cost": float((theirs - floats).pow(2).mean().sqrt() / floats.std()),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "layer": _kind(layers[0]),
        "fast": loaded.fast is not None,
        "bytes": weight_bytes(loaded),
        "planned": forecast(folder, EngineConfig(dtype="auto")).memory.weight_bytes,
        "floats": weight_bytes(load(source, EngineConfig())),
    }


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
