"""The fast decoder gives what the library's module gives, and where it would not, the library's module runs."""

from __future__ import annotations

import copy
import logging
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.embeddings import Embeddings
from penstock.engine.family import Loaded
from penstock.engine.loading import open as opening
from penstock.engine.loading.int8 import quantize
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.engine.plan import Draw, Feed
from penstock.engine.runner import linears
from penstock.engine.runner.attention_cpu import CpuBackend
from penstock.engine.runner.language import LanguageModel
from penstock.engine.runner.linears import Packed
from penstock.engine.runner.takeover import take_over
from penstock.engine.span import Rows

from tests.fixtures.recipe import model_path

FAMILIES = (
    *(None, "omni", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_onevision", "gemma3", "smolvlm"),
    *("text", "qwen3", "llama", "gemma3_text"),
)
IN_HALF = (*FAMILIES, "qwen3_omni")
PAGE, PAGES, SLOTS = 4, 64, 4
# Root mean square of the difference, of that of the logits. A layer's own rounding in float32 is below 1e-6 of it.
TOLERANCE = 1e-5

Drawn = list[list[tuple[int, bool]]]


def served(name: str | None, dtype: str = "float32") -> Loaded:
    return load(None if name is None else model_path(name), EngineConfig(dtype=dtype))


@cache
def kept(name: str | None) -> Loaded:
    return served(name)


def by_library(name: str | None, dtype: str, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """Without a fast decoder, all weights in place."""
    with monkeypatch.context() as patch:
        patch.setattr(opening, "take_over", lambda loaded: loaded)
        return served(name, dtype)


class Fed:
    """A decoder over a cache of its own, and how many rows each slot has."""

    def __init__(self, loaded: Loaded, deep: int = 0) -> None:
        self.language = LanguageModel(loaded, PAGES, PAGE, SLOTS, CpuBackend(1))
        self.language.cache.tables[:SLOTS] = torch.arange(PAGES).reshape(SLOTS, -1).repeat(1, SLOTS)
        self.firsts, self._deep = [0] * SLOTS, deep

    def rows(self, seed: int, first: int, count: int, visual: bool) -> Rows:
        """Rows at places that grow on three axes. Visual ones have embeddings, with some for the first layers where
        the model takes such, and see one another."""
        random = np.random.default_rng(seed)
        ids = random.integers(0, 1000, count)
        positions = np.sort(random.integers(first, first + 3 * count, (3, count)))
        shape = (1 + self._deep, count, self.language.embed.weight.shape[1])
        first_layer, *deeper = torch.from_numpy(random.normal(size=shape)).to(self.language.embed.weight.dtype)
        embeds = Embeddings(first_layer, torch.stack(deeper) if deeper else None)
        return Rows(ids, positions, self.language.spans.put(embeds) if visual else None, atomic=visual)

    @torch.inference_mode()
    def step(self, seed: int, counts: list[tuple[int, bool]]) -> torch.Tensor:
        """Logits `(rows, vocabulary)` of a step in which each slot feeds so many rows, of words or of a picture."""
        feeds = []
        for slot, (count, visual) in enumerate(counts):
            if count:
                rows = self.rows(100 * seed + slot, self.firsts[slot], count, visual)
                feeds.append(Feed(slot, slot, self.firsts[slot], [rows], Draw()))
                self.firsts[slot] += count
        return self.language.head(self.language._forward(feeds)).float() if feeds else torch.zeros(0)


def logits(loaded: Loaded, steps: Drawn) -> torch.Tensor:
    """Of all rows of some steps."""
    takes = "deepstack_visual_embeds" in type(loaded.text).forward.__annotations__
    fed = Fed(loaded, deep=2 * takes)
    return torch.cat([fed.step(seed, counts).flatten() for seed, counts in enumerate(steps)])


def size(numbers: torch.Tensor) -> float:
    return float(numbers.pow(2).mean().sqrt())


RAGGED = st.lists(
    st.lists(st.tuples(st.sampled_from([0, 1, 1, 2, 7]), st.booleans()), min_size=SLOTS, max_size=SLOTS),
    min_size=1,
    max_size=4,
).filter(lambda steps: any(count for step in steps for count, _ in step))
SOME: Drawn = [[(7, True), (7, False), (2, True), (0, False)], [(1, False), (7, True), (1, False), (7, False)]]
SOME += [[(1, False)] * SLOTS] * 2


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=5)
@given(steps=RAGGED)
def test_it_gives_what_the_library_gives(name: str | None, steps: Drawn) -> None:
    """Streams that decode beside streams that append words and pictures, with windows and without."""
    loaded = kept(name)
    assert loaded.fast is not None
    ours, library = logits(loaded, steps), logits(loaded._replace(fast=None), steps)
    assert size(ours - library) <= TOLERANCE * size(library)


def test_heads_of_which_a_part_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = kept("llama")._replace(text=copy.deepcopy(kept("llama").text), fast=None)
    rotary, modeling = loaded.text.rotary_emb, sys.modules[type(loaded.text).__module__]
    rotary.inv_freq = rotary.inv_freq[: len(rotary.inv_freq) // 2]
    turned: Any = modeling.apply_rotary_pos_emb

    def a_part(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
        count = cos.shape[-1]
        parts = zip(turned(query[..., :count], key[..., :count], cos, sin), (query, key), strict=True)
        return tuple(torch.cat([part, whole[..., count:]], -1) for part, whole in parts)

    monkeypatch.setattr(modeling, "apply_rotary_pos_emb", a_part)
    found = take_over(loaded)
    assert found.fast is not None
    ours, library = logits(found, SOME), logits(loaded, SOME)
    assert size(ours - library) <= TOLERANCE * size(library)
    assert size(ours - logits(kept("llama"), SOME)) > 1000 * TOLERANCE * size(library)


@pytest.mark.parametrize("name", IN_HALF)
def test_in_bfloat16_it_is_as_near_to_float32_as_the_library(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within twice the library's error, with weights that are packed."""
    monkeypatch.setattr(linears, "_gains", lambda *_: True)
    loaded, library = served(name, "bfloat16"), by_library(name, "bfloat16", monkeypatch)
    exact = library._replace(text=copy.deepcopy(library.text).float(), head=copy.deepcopy(library.head).float())
    assert loaded.fast is not None
    if linears._packable(library.head):
        assert all(linear.packed_bytes for linear in loaded.fast.linears)
    ours, theirs, right = (logits(each, SOME) for each in (loaded, library, exact))
    assert 0 < size(ours - right) <= 2 * size(theirs - right)


@pytest.mark.parametrize("name", ["text", "qwen2_5_vl", "gemma3"])
def test_a_row_is_the_same_whoever_else_is_in_the_step(name: str) -> None:
    """A stream that decodes alone, and beside one that appends: its logits are nearly those, its token is."""
    alone, beside = (Fed(kept(name)) for _ in range(2))
    for fed, other in ((alone, 0), (beside, 7)):
        fed.step(1, [(7, False), (other, True)])
    first, second = alone.step(2, [(1, False)]), beside.step(2, [(1, False), (7, False)])[:1]
    assert size(first - second) <= TOLERANCE * size(first)
    assert int(first.argmax()) == int(second.argmax())


class WithEps(torch.nn.Module):
    """A norm that says another eps than it takes."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        variance = rows.pow(2).mean(-1, keepdim=True)
        return self.weight * rows * torch.rsqrt(variance + 10 * self.variance_epsilon)


class Adapted(torch.nn.Linear):
    """A linear layer with an adapter."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) + rows.mean(-1, keepdim=True)


def another_eps(text: Any) -> None:
    text.layers[1].post_attention_layernorm = WithEps(text.layers[1].post_attention_layernorm)


def another_last_eps(text: Any) -> None:
    text.norm = WithEps(text.norm)


def an_adapter(text: Any) -> None:
    layer = text.layers[2].mlp.up_proj
    adapted = Adapted(layer.in_features, layer.out_features, bias=False)
    adapted.weight = layer.weight
    text.layers[2].mlp.up_proj = adapted


def changed(part: Any, change: Callable[[Any], Any]) -> None:
    """A module whose class gives something else."""
    kind = type(part)

    class Changed(kind):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return change(super().forward(*args, **kwargs))

    part.__class__ = Changed


def twice(text: Any) -> None:
    """The last layer runs once more, as a part of the one before it."""
    last, forward = text.layers[2], text.layers[1].forward
    text.layers[1].forward = lambda rows, **others: last(forward(rows, **others), **others)


def scaled(text: Any) -> None:
    forward = text.forward
    text.forward = lambda inputs_embeds, **others: forward(inputs_embeds=2 * inputs_embeds, **others)


MUTATIONS: dict[str, tuple[Callable[[Any], object], str]] = {
    "the eps of a norm": (another_eps, "post_attention_layernorm of layer 1 is .* from the exact one"),
    "the eps of the last norm": (another_last_eps, "norm of the decoder is .* from the exact one"),
    "slower positions": (
        lambda text: changed(text.rotary_emb, lambda turns: (turns[0] * 1.001, turns[1])),
        "layer 0 is .* from the exact one, expected at most",
    ),
    "another order of positions": (
        lambda text: changed(text.rotary_emb, lambda turns: tuple(turn.flip(-1) for turn in turns)),
        "layer 0 is .* from the exact one, expected at most",
    ),
    "a scaled layer": (
        lambda text: changed(text.layers[1].mlp, lambda rows: rows * 1.00001),
        "layer 1 is .* from the exact one, expected at most",
    ),
    "something between the layers": (
        lambda text: text.layers[1].register_forward_pre_hook(lambda _, args: (args[0] * 2, *args[1:])),
        "expected modules without hooks",
    ),
    "embeddings that are scaled": (scaled, "expected embeddings to go into the first layer as they are"),
    "an adapter": (an_adapter, "expected plain linear layers, got Adapted"),
    "int8": (quantize, "expected plain linear layers, got Int8Linear"),
    "a bias on some": (
        lambda text: setattr(text.layers[0].self_attn.q_proj, "bias", None),
        "expected biases on all layers that read the same rows or on none",
    ),
    "a layer that runs twice": (twice, "expected each of 3 layers to run once, got 4 runs"),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_decoder_that_does_something_else_runs_as_the_library_has_it(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    mutate, reason = MUTATIONS[what]
    loaded = kept("text")._replace(text=copy.deepcopy(kept("text").text), fast=None)
    mutate(loaded.text)
    before = logits(loaded, SOME)
    with caplog.at_level(logging.INFO, "penstock.engine"):
        found = take_over(loaded)
    assert found.fast is None
    (message,) = [record.getMessage() for record in caplog.records if "as the library has it" in record.getMessage()]
    assert re.search(reason, message)
    assert torch.equal(logits(found, SOME), before)


def test_what_is_not_changed_is_taken() -> None:
    loaded = kept("text")._replace(text=copy.deepcopy(kept("text").text), fast=None)
    assert take_over(loaded).fast is not None


@pytest.mark.parametrize("gains", [True, False])
def test_a_weight_is_held_once(gains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed or as it was; of what was packed the library's layers are empty, and the bytes that are counted are the
    same."""
    monkeypatch.setattr(linears, "_gains", lambda *_: gains)
    loaded, library = served("qwen2_5_vl", "bfloat16"), by_library("qwen2_5_vl", "bfloat16", monkeypatch)
    packs = gains and linears._packable(library.head)
    assert weight_bytes(loaded) == weight_bytes(library)
    assert isinstance(loaded.head, Packed) == packs
    left = sum(layer.weight.nbytes for layer in loaded.text.modules() if type(layer) is torch.nn.Linear)
    assert left == 0 if packs else left > 0
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in loaded.text.parameters()}
    packed = sum(linear.packed_bytes for linear in loaded.fast.linears)
    whole = sum(part.nbytes for part in library.text.parameters())
    assert sum(storages.values()) + packed == whole


def test_a_decoder_that_is_put_in_its_place_runs() -> None:
    """Whoever replaces the library's module replaces the fast decoder as well."""
    loaded = kept("text")
    other = loaded._replace(text=copy.deepcopy(loaded.text))
    with torch.no_grad():
        other.text.norm.weight.mul_(2)
    assert size(logits(other, SOME) - 2 * logits(loaded, SOME)) <= TOLERANCE * size(logits(loaded, SOME))
