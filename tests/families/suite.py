"""What the tests of models that nobody named share: a family, its media, and a reference that computes with nothing of
ours but the pieces in which media came."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.families.prompt import process
from penstock.engine.families.tried_towers import TriedTowers
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.streams.requests.prompt import Content, Media
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import Segment

from tests.engine.rig import Rig, Session
from tests.engine.test_oracle1 import REPLY, turn
from tests.reference.media import frames, picture, sound

RATE = 16_000
Builder = Callable[[Path], Path]


class Tried(NamedTuple):
    """A family as the engine serves it, and by plain `transformers`."""

    loaded: Loaded
    model: Any

    @property
    def towers(self) -> TriedTowers:
        towers = self.loaded.towers
        assert isinstance(towers, TriedTowers)
        return towers

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.loaded.family.modalities

    @property
    def streamed(self) -> tuple[str, ...]:
        """The kinds that may come in a stream."""
        return tuple(kind for kind, letter in self.loaded.family.data.classes.items() if letter != "F")

    @property
    def streams(self) -> list[tuple[str, ...]]:
        """Which kinds may come in one stream, with all of them in some."""
        alone = self.loaded.family.data.exclusive
        rest = tuple(kind for kind in self.streamed if kind not in alone)
        return [(*rest, kind) for kind in alone] or [rest]

    def inputs(self, content: Content) -> Any:
        """What the library's model takes for a prompt."""
        return process(self.towers, content).to(dtype=torch.float32)

    def by_rule(self, inputs: Any) -> torch.Tensor:
        """The positions `(axes, n)` of a prompt: by the library's own rule, or counted."""
        if self.towers.rope is None:
            return torch.arange(inputs["input_ids"].shape[1])[None]
        takes = inspect.signature(self.towers.rope).parameters
        given = {name: value for name, value in inputs.items() if name in takes}
        return self.towers.rope(**given)[0][:, 0]


def opened(folder: Path) -> Tried:
    config = hf.AutoConfig.from_pretrained(folder)
    [name] = config.architectures or []
    make = getattr(hf, name)
    model = make.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    return Tried(load(folder, EngineConfig()), model.eval())


BESIDE = {"moe_mm_token_type_ids"}  # what decoders are told of each row
MEDIA: dict[str, list[np.ndarray]] = {
    "image": [picture(1, 60, 130), picture(2, 120, 50), picture(3, 40, 40)],
    "video": [frames(3, 4), frames(4, 8, 70, 90)],
    "audio": [sound(5, 0.7), sound(6, 2.7)],
}


def asked(tried: Tried, *parts: tuple[str, np.ndarray]) -> tuple[Request, Any]:
    """One prompt as a request, and as the library's model takes it."""
    messages = [turn(*parts, "What do you see?")]
    request = Request(messages=messages, positions="transformers", params=SamplingParams(max_tokens=REPLY))
    plain = [
        {"role": "user", "content": [{"type": kind, kind: "x"} for kind, _ in parts] + messages[0]["content"][-1:]}
    ]
    fps = tried.towers.video_fps
    return request, tried.inputs(Content([Media(*part) for part in parts], messages=plain, video_fps=fps))


def pair(tried: Tried) -> tuple[Request, Any]:
    """A prompt with two pictures, of which one may have marks that the other has not; of one shape, where the processor
    takes no others together."""
    first, second, _ = MEDIA["image"]
    try:
        return asked(tried, ("image", first), ("image", second))
    except ValueError:
        return asked(tried, ("image", first), ("image", first[::-1]))


def by_library(tried: Tried, inputs: Any) -> tuple[list[int], torch.Tensor]:
    """Ids and logits of `generate`."""
    for part in (tried.model, getattr(tried.model, "model", tried.model)):
        part.rope_deltas = None
    more = {"max_new_tokens": REPLY, "return_dict_in_generate": True, "output_logits": True, "do_sample": False}
    result = tried.model.generate(**inputs, **more)
    return result.sequences[0, inputs["input_ids"].shape[1] :].tolist(), torch.cat(result.logits)


class Watched:
    """A session whose media is remembered in the order in which the towers took it."""

    def __init__(self, tried: Tried, monkeypatch: pytest.MonkeyPatch, **rig: Any) -> None:
        self.tried = tried
        self.segments: list[Segment] = []
        encode = tried.towers.encode

        def watched(batch: list[tuple[int, Segment]]) -> Any:
            self.segments += [segment for _, segment in batch]
            return encode(batch)

        monkeypatch.setattr(tried.towers, "encode", watched)
        self.rig = Rig(tried.loaded, **{"page_tokens": 4, "append_rows": 7, **rig})

    def show(self, session: Session, kind: str, place: int) -> None:
        """A medium of this kind; in pieces, where it comes in pieces."""
        medium = MEDIA[kind][place]
        if kind == "image":
            session.image(medium)
        elif kind == "video":
            for number, pixels in enumerate(medium):
                session.frame(pixels, round((2 * place + number / 2) * 1_000_000))
        else:
            for start in range(0, len(medium), 3_001):
                session.sound(medium[start : start + 3_001])

    def logits(self, session: Session) -> torch.Tensor:
        """The library's, of all that the cache holds, in one dense pass."""
        ids, positions = session.transcript()
        model, towers = self.tried.model, self.tried.towers
        seen = torch.zeros(len(ids), dtype=torch.bool)
        with torch.inference_mode():
            words = model.get_input_embeddings()
            known = torch.tensor(ids)
            embeds = words(torch.where(known < len(words.weight), known, 0))
            deep: list[torch.Tensor] = []
            beside: dict[str, torch.Tensor] = {}
            more = self.by_layer(ids)
            at = 0
            for segment in self.segments:
                laid = towers.piece(segment)
                given = decoder_given(model, laid.inputs.to(dtype=torch.float32))
                start = next(
                    place for place in range(at, len(ids)) if ids[place : place + len(laid.ids)] == laid.ids.tolist()
                )
                before = int(np.flatnonzero(laid.inputs["input_ids"][0].numpy() == laid.ids[0])[0])
                where = torch.from_numpy(np.flatnonzero(laid.media))
                count = len(laid.ids)
                embeds[start : start + count] = given["inputs_embeds"][0, before : before + count]
                seen[start + where] = True
                if "per_layer_inputs" in more:
                    more["per_layer_inputs"][0, start + where] = given["per_layer_inputs"][0, before + where]
                if "mm_token_type_ids" in more:
                    types = laid.inputs["mm_token_type_ids"]
                    more["mm_token_type_ids"][0, start + where] = types[0, before + where].int()
                parts = given.get("deepstack_visual_embeds") or [*(given.get("deepstack_features") or {}).values()]
                deep = deep or [torch.zeros_like(embeds) for _ in parts]
                for layer, part in zip(deep, parts, strict=True):
                    layer[start + where] = part
                at = start + len(laid.ids)
                for name in BESIDE & given.keys():
                    told = beside.setdefault(name, torch.zeros(1, len(ids), dtype=torch.int64))
                    for place, (id, number) in enumerate(
                        zip(laid.inputs["input_ids"][0], given[name][0], strict=True), start - before
                    ):
                        if 0 <= place < len(ids) and ids[place] == id:
                            told[0, place] = number
            places = positions[:1] if towers.rope is None else positions[:, None]
            inputs = {"inputs_embeds": embeds[None], "position_ids": places, "use_cache": False, **more}
            with also_given(model, seen, deep, beside):
                return model(**inputs).logits[0]

    def by_layer(self, ids: list[int]) -> dict[str, torch.Tensor]:
        """What the library's model takes of ids beside embeddings, of words alone."""
        decoder, more = self.tried.model.get_decoder(), {}
        if getattr(decoder.config, "hidden_size_per_layer_input", 0):
            more["per_layer_inputs"] = decoder.get_per_layer_inputs(torch.tensor([ids]))
        if "D" in self.tried.loaded.family.data.classes.values():
            more["mm_token_type_ids"] = torch.zeros(1, len(ids), dtype=torch.int32)
        return more


class _Given(Exception):
    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = given


def decoder_given(model: Any, inputs: Any) -> dict[str, Any]:
    """What the library's model gives its decoder for a processor's output; ids become rows in some decoders only."""

    def catch(_: Any, args: Any, given: dict[str, Any]) -> None:
        if given.get("inputs_embeds") is not None:
            raise _Given(given)

    def catch_rows(_: Any, args: Any, given: dict[str, Any]) -> None:
        raise _Given({"inputs_embeds": args[0]})

    decoder = model.get_decoder()
    pairs = [(decoder, catch), *((layer, catch_rows) for layer in getattr(decoder, "layers", [])[:1])]
    hooks = [module.register_forward_pre_hook(catches, with_kwargs=True) for module, catches in pairs]
    try:
        model(**inputs, use_cache=False)
    except _Given as caught:
        return caught.given
    finally:
        for hook in hooks:
            hook.remove()
    raise AssertionError("the model has not called its decoder")


@contextlib.contextmanager
def also_given(
    model: Any, seen: torch.Tensor, deep: list[torch.Tensor], beside: dict[str, torch.Tensor]
) -> Iterator[None]:
    """Inside, the decoder also gets what it adds to its first layers' rows where media stands: `deep`, by layer; and
    what it is told of each row."""
    layers = [layer[seen] for layer in deep]
    more = {"visual_pos_masks": seen[None], "deepstack_visual_embeds": layers}
    if "deepstack_features" in inspect.signature(model.get_decoder().forward).parameters:
        more = {"vision_mask": seen[None, :, None], "deepstack_features": dict(enumerate(layers))}

    def add(_: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**given, **(more if deep else {}), **beside}

    hook = model.get_decoder().register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
