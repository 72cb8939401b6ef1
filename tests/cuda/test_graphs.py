"""Decode steps that are recorded once and launched again: the same numbers as without, in padded batches.

Where there is no device a stand-in runs the recorded work again, on what the buffers then hold. With `-m gpu` CUDA
records it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from penstock.codecs.errors import ModelError
from penstock.engine.brook.recipe import model_path
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core, load
from penstock.engine.graphs import Work
from penstock.engine.language import LanguageModel
from penstock.engine.plan import Draw, Feed, Plan, TableEdit

from tests.cuda.test_fake_step import EMPTY, Launch, Machine, Unread, launch, rows
from tests.cuda.test_oracles import LOADERS
from tests.engine.acts import Client, strangers
from tests.engine.rig import Rig, Session

__all__ = ["launch"]

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


def with_graphs(rig: Rig, record: Any) -> LanguageModel:
    """The rig's engine, its decoder with graphs."""
    old = rig.core.language
    pages, page_tokens = old.keys[0].shape[:2]
    rig.core.language = LanguageModel(rig.core.loaded, pages, page_tokens, len(old.tables), old.backend, record)
    return rig.core.language


def crowd(rig: Rig) -> list[Session]:
    """Streams that come, take media in mid-reply, are copied, take pages from each other, and go."""
    media = rig.core.loaded.family.modalities
    client = Client(rig.open(format="live"))
    client.do("image" if "image" in media else "text")
    client.do("ask", max_tokens=24)
    rig.step(6)
    others = strangers(rig, 3, 30, with_media="video" in media)
    rig.step(8)
    client.do("image" if "image" in media else "text", 1)
    rig.step(2)
    twin = rig.fork(client.session)
    rig.run()
    return [client.session, twin, *(other.session for other in others)]


def plain(name: str) -> tuple[Any, Any]:
    return tuple(kind.from_pretrained(model_path(name)) for kind in LOADERS[name])  # type: ignore[return-value]


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("name", NAMES)
def test_streams_beside_each_other(name: str, backend: str) -> None:
    """Batches of one to five streams, padded to 1, 2, 4 and 8."""
    triton: Any = pytest.importorskip("penstock.engine.attention_triton", reason="Triton comes for Linux only")
    rig, again = Rig(load(model_path(name), EngineConfig()), backend="reference", page_tokens=4, kv_tokens=400), Again()
    language = with_graphs(rig, again)
    if backend == "triton":
        language.backend = triton.TritonBackend(8)
    for session in crowd(rig):
        assert session.check(*plain(name)) >= 12
    assert sorted(again.sizes) == [1, 2, 4, 8]
    tokens = [plan for plan in rig.plans if plan.feeds and all(sum(map(len, f.rows)) == 1 for f in plan.feeds)]
    assert 20 < again.launches == len(tokens) < len(rig.plans)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_pass_waits_for_nothing(name: str, launch: Launch) -> None:
    """With fake CUDA tensors: three streams in a batch of four."""
    again = Again()

    class Recorded(Unread):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, again)

    machine = Machine(load(model_path(name), EngineConfig()), Recorded)
    edits = [TableEdit(slot, 0, [slot]) for slot in range(3)]
    feeds = [Feed(slot, slot, 5, [rows(1)], Draw()) for slot in range(3)]
    for _ in range(2):
        assert len(machine.run(Plan(1, **{**EMPTY, "edits": edits}, feeds=feeds)).tokens) == 3
    assert again.sizes == [4] and again.launches == 2
    assert machine.device.watch.left == 0


def test_a_decoder_that_cannot_be_recorded_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    def refused(work: Work) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    rig = Rig(load(model_path("text"), EngineConfig()))
    with_graphs(rig, refused)
    with caplog.at_level(logging.WARNING, "penstock.engine"):
        for session in crowd(rig):
            assert session.check(*plain("text")) >= 12
    (line,) = [record.message for record in caplog.records if "graphs" in record.message]
    assert line.endswith("not recorded as graphs: operation not permitted when stream is capturing")


def test_graphs_are_refused_without_cuda() -> None:
    with pytest.raises(ModelError, match="cuda_graphs: expected a CUDA device, got cpu"):
        Core(load(model_path("text"), EngineConfig()), EngineConfig(kv_tokens=640, cuda_graphs=True))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_on_a_device_the_tokens_are_the_same(name: str) -> None:
    loaded = load(model_path(name), EngineConfig(device="cuda"))
    told = []
    for graphs in (False, True):
        rig = Rig(loaded, backend="auto", page_tokens=4, kv_tokens=400, cuda_graphs=graphs)
        told.append([session.ids() for session in crowd(rig)])
        assert not graphs or rig.core.language._graphs._graphs  # type: ignore[union-attr]
    assert told[0] == told[1]
