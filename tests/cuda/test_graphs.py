"""Steps that are recorded once and launched again: the same numbers as without, in padded batches.

Where there is no device a stand-in runs the recorded work again, on what the buffers then hold. With `-m gpu` CUDA
records it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.loading.open import load
from penstock.engine.plan import TABLES, Draw, Feed, Plan, TableEdit
from penstock.engine.runner.attention import Backend, Part, ReferenceBackend
from penstock.engine.runner.batch import batched
from penstock.engine.runner.graphs import Work, _is_token, padded
from penstock.engine.runner.language import LanguageModel
from penstock.errors import ModelError

from tests.cuda import test_oracles
from tests.cuda.test_fake_step import EMPTY, Launch, Machine, Unread, fused, launch, rows
from tests.cuda.test_oracles import LOADERS
from tests.engine.acts import Client, strangers
from tests.engine.rig import Rig, Session
from tests.fixtures.recipe import model_path

__all__ = ["fused", "launch"]

NAMES = ["text", "gemma3", "omni", "qwen3_vl"]


class Again:
    """Runs the work once when it is recorded and once at each launch, into one and the same tensor."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.launches = 0

    def __call__(self, work: Work) -> tuple[Callable[[], None], torch.Tensor]:
        out = work().clone()
        self.sizes.append(len(out))

        def launched() -> None:
            self.launches += 1
            out.copy_(work())

        return launched, out


def with_graphs(rig: Rig, record: Any, backend: Backend) -> LanguageModel:
    """The rig's engine, its decoder with graphs."""
    old = rig.core.language
    pages, page_tokens = old.cache.keys[0].shape[:2]
    slots = len(old.cache.tables) // TABLES
    rig.core.language = LanguageModel(rig.core.loaded, pages, page_tokens, slots, backend, record, 32)
    rig.core.language.spans = old.spans
    return rig.core.language


def crowd(rig: Rig) -> list[Session]:
    """Streams that come, take media in mid-reply, are copied, take pages from each other, and go."""
    media = rig.core.loaded.family.modalities
    client = Client(rig.open(format="live"))
    client.do("image" if "image" in media else "text")
    client.do("ask", max_tokens=18)
    rig.step(4)
    others = strangers(rig, 3, 4, with_media="video" in media)
    rig.step(6)
    client.do("image" if "image" in media else "text", 1)
    rig.step(2)
    twin = rig.fork(client.session)
    rig.run()
    return [client.session, twin, *(other.session for other in others)]


@cache
def plain(name: str) -> tuple[Any, Any]:
    model, processor = LOADERS[name]
    return model.from_pretrained(model_path(name)), processor.from_pretrained(model_path(name))


class Masked(Backend):
    """Attention that asks for no value, as graphs need it, and is quick here: every row over all pages of its stream,
    behind a mask."""

    page_tokens = 4

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float, cap: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pages = part.tables[part.slots].long().clamp(min=0)
        group = query.shape[1] // keys.shape[2]
        key, value = (pool[pages].flatten(1, 2).float().repeat_interleave(group, 2) for pool in (keys, values))
        places = torch.arange(key.shape[1])
        hidden = places >= part.lengths[:, None]
        if part.firsts is not None:
            hidden |= places < part.firsts[:, None]
        scores = torch.einsum("rhd,rthd->rht", query.float(), key) * scale
        scores = scores.masked_fill(hidden[:, None], float("-inf"))
        weights = scores.softmax(-1).nan_to_num()
        return torch.einsum("rht,rthd->rhd", weights, value).to(query.dtype), scores.logsumexp(-1)


@pytest.mark.parametrize("name", NAMES)
def test_streams_beside_each_other(name: str) -> None:
    """Batches of one to five streams, padded to 1, 2, 4 and 8; steps that append, up to 32 rows. Those in which a tower
    gives something for deeper layers as well are not launched as a graph."""
    again = Again()
    rig = Rig(load(model_path(name), EngineConfig()), slots=8, page_tokens=4, kv_tokens=400)
    language = with_graphs(rig, again, Masked())
    assert language.graphs is not None and language.graphs.sizes == ([1, 2, 4, 8], [16, 32])
    assert again.sizes == [8, 4, 2, 1, 32, 16]
    for session in crowd(rig):
        assert session.check(*plain(name)) >= 12
    fed = [plan.feeds for plan in rig.plans if plan.feeds]
    tokens = [feeds for feeds in fed if all(map(_is_token, feeds))]
    appends = [feeds for feeds in fed if feeds not in tokens and len(batched(feeds)) <= 32]
    if name == "qwen3_vl":
        appends = [feeds for feeds in appends if all(run.stored is None for feed in feeds for run in feed.rows)]
    assert 20 < len(tokens) and 2 < len(appends) and len(tokens) + len(appends) < len(fed)
    assert again.launches == len(tokens) + len(appends)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_pass_waits_for_nothing(name: str, launch: Launch) -> None:
    """With fake CUDA tensors: three streams in a batch of four, then one that appends beside two, in one of 16."""
    again = Again()

    class Recorded(Unread):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, record=again, appends=16)

    machine = Machine(load(model_path(name), EngineConfig()), Recorded)
    edits = [TableEdit(slot, 0, [slot]) for slot in range(3)]
    for counts in ([1, 1, 1], [1, 1, 1], [1, 9, 1]):
        feeds = [Feed(slot, slot, 5, [rows(count)], Draw()) for slot, count in enumerate(counts)]
        assert len(machine.run(Plan(1, **{**EMPTY, "edits": edits}, feeds=feeds)).tokens) == 3
    assert again.sizes == [8, 4, 2, 1, 16] and again.launches == 3
    assert machine.device.watch.left == 0


def test_sizes_are_powers_of_two_and_of_many_rows_multiples() -> None:
    sizes = [padded(rows) for rows in range(1, 257)]
    assert sorted(set(sizes)) == [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256]
    assert all(rows <= size < 2 * rows for rows, size in enumerate(sizes, 1))


def test_a_decoder_that_asks_for_values_is_found_before_and_goes_on_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The reference backend asks how long a history is."""
    rig, again = Rig(load(model_path("text"), EngineConfig())), Again()
    with caplog.at_level(logging.WARNING, "penstock.engine"):
        with_graphs(rig, again, ReferenceBackend())
    (line,) = [record.message for record in caplog.records if "graphs" in record.message]
    assert re.search("not recorded as graphs: .*_local_scalar_dense.* waits for a value", line)
    for session in crowd(rig):
        assert session.check(*plain("text")) >= 12
    assert again.sizes == [] and again.launches == 0


def test_a_device_that_records_nothing_is_used_without_graphs(caplog: pytest.LogCaptureFixture) -> None:
    def refuses(work: Work) -> tuple[Callable[[], None], torch.Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    rig = Rig(load(model_path("text"), EngineConfig()))
    with caplog.at_level(logging.WARNING, "penstock.engine"):
        with_graphs(rig, refuses, Masked())
    assert "not recorded as graphs: operation not permitted" in caplog.text
    for session in crowd(rig):
        assert session.check(*plain("text")) >= 12


def test_graphs_are_refused_without_cuda() -> None:
    with pytest.raises(ModelError, match="cuda_graphs: expected a CUDA device, got cpu"):
        Core(load(model_path("text"), EngineConfig()), EngineConfig(kv_tokens=640, cuda_graphs=True))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_on_a_device_both_are_right(name: str) -> None:
    loaded = load(model_path(name), EngineConfig(device="cuda"))
    for graphs in (False, True):
        rig = Rig(loaded, backend="auto", page_tokens=4, kv_tokens=400, slots=8, cuda_graphs=graphs)
        sessions = crowd(rig)
        recorded = rig.core.language.graphs
        assert (recorded is not None) == graphs
        assert recorded is None or recorded.sizes[0] == [1, 2, 4, 8]
        reference = test_oracles.plain(name)
        assert all(reference.check(session) >= 12 for session in sessions)
