"""The fast decoder gives what the library's module gives, and where it would not, the library's module runs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading import open as opening
from penstock.engine.loading.int8 import quantize
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.engine.plan import Draw, Feed
from penstock.engine.runner import linears, takeover
from penstock.engine.runner.attention_cpu import CpuBackend
from penstock.engine.runner.language import LanguageModel
from penstock.engine.runner.linears import Linear, Packed, Packing
from penstock.engine.span import Rows
from penstock.errors import ModelError

from tests.fixtures.recipe import model_path

FAMILIES = (
    *(None, "omni", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_onevision", "gemma3", "smolvlm"),
    *("text", "qwen3", "llama", "gemma3_text"),
)
EXPERTS = "qwen3_omni"  # its experts do not run in float64, in which layers of float32 are judged
PAGE, PAGES, SLOTS = 4, 64, 4
# Root mean square of the difference, of that of the hidden states: in float32 a layer is 1e-6 of it from the exact one.
TOLERANCE = 1e-5


def served(name: str | None, dtype: str = "float32") -> Loaded:
    return load(None if name is None else model_path(name), EngineConfig(dtype=dtype))


@cache
def kept(name: str | None) -> Loaded:
    return served(name)


def by_library(name: str | None, dtype: str, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """As it was before there was a fast decoder."""
    with monkeypatch.context() as patch:
        patch.setattr(opening, "take_over", lambda loaded: loaded)
        return served(name, dtype)


def language(loaded: Loaded) -> LanguageModel:
    made = LanguageModel(loaded, PAGES, PAGE, SLOTS, CpuBackend(1))
    made.tables[:] = torch.arange(PAGES).reshape(SLOTS, -1).repeat(1, SLOTS)
    return made


def run(seed: int, loaded: Loaded, first: int, count: int, visual: bool) -> Rows:
    """Rows at increasing places on three axes; visual ones bring features, for the first layers too where the model
    takes such, and see one another."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 1000, count)
    positions = np.sort(random.integers(first, first + 3 * count, (3, count)))
    width = loaded.text.get_input_embeddings().weight.shape[1]
    takes = takeover._DEEP in type(loaded.text).forward.__code__.co_varnames or "Qwen3VL" in type(loaded.text).__name__
    embeds = torch.from_numpy(random.normal(size=(count, width * (1 + 2 * takes)))).to(loaded.dtype)
    return Rows(ids, positions, embeds if visual else None, atomic=visual)


# Of each step, the rows of each slot: none, one, or several, of words or of a picture.
steps = st.lists(st.lists(st.tuples(st.sampled_from([0, 1, 1, 2, 7]), st.booleans()), min_size=SLOTS, max_size=SLOTS), max_size=4)


def hidden_states(loaded: Loaded, drawn: list[list[tuple[int, bool]]]) -> torch.Tensor:
    """Of all rows of all steps over one cache."""
    made, firsts, found = language(loaded), [0] * SLOTS, [torch.zeros(1, 0)]
    with torch.inference_mode():
        for number, step in enumerate(drawn):
            feeds = []
            for slot, (count, visual) in enumerate(step):
                if count:
                    rows = run(100 * number + slot, loaded, firsts[slot], count, visual)
                    feeds.append(Feed(slot, slot, firsts[slot], [rows], Draw()))
                    firsts[slot] += count
            if feeds:
                hidden = made._forward(feeds)
                found.append(made.head(hidden).float())
    return torch.cat([rows for rows in found if rows.numel()]) if len(found) > 1 else torch.zeros(0, 1)


def size(numbers: torch.Tensor) -> float:
    return float(numbers.pow(2).mean().sqrt()) if numbers.numel() else 0.0


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=6, deadline=None)
@given(drawn=steps)
def test_it_gives_what_the_library_gives(name: str | None, drawn: list[list[tuple[int, bool]]]) -> None:
    """Streams that decode beside streams that append words and pictures, in windows and without."""
    loaded = kept(name)
    assert loaded.fast is not None
    ours, library = hidden_states(loaded, drawn), hidden_states(loaded._replace(fast=None), drawn)
    assert size(ours - library) <= TOLERANCE * size(library)
