"""Whole steps with fake CUDA tensors: these have shapes, types and devices, and no values.

So a tensor on the wrong device fails, and so does whatever waits for the device (`.item()`, `.tolist()`, counting what
a mask has, a plain copy). A step waits once, where its tokens are read.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.plan import Draw, Feed, Plan, TableEdit
from penstock.engine.runner.attention import Backend, ReferenceBackend
from penstock.engine.runner.language import LanguageModel
from penstock.engine.span import Rows
from torch._subclasses.fake_tensor import FakeTensor

from tests.cuda.fake import Device
from tests.engine.acts import Client, strangers
from tests.engine.rig import Rig
from tests.fixtures.recipe import model_path

attention_triton: Any = pytest.importorskip(
    "penstock.engine.runner.attention_triton", reason="Triton comes for Linux only"
)
pointwise_triton: Any = pytest.importorskip("penstock.engine.runner.pointwise_triton")

TOKEN = 30  # a word that ends nothing


class Launch:
    """Stands for the compiled kernel: whatever it is given must lie on the device."""

    def __init__(self, tensors: int) -> None:
        self.tensors = tensors
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launched(*args: Any, **sizes: int) -> None:
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
            assert len(tensors) == self.tensors and all(tensor.device.type == "cuda" for tensor in tensors)
            assert all(tensor.is_contiguous() for tensor in tensors[:3])
            self.grids.append(grid)

        return launched


class Unread(LanguageModel):
    """Reads no values, for there are none: says a word for each draw."""

    def _read(self, tokens: torch.Tensor) -> list[int]:
        assert isinstance(tokens, FakeTensor) and tokens.device.type == "cuda" and tokens.dtype == torch.int64
        return [TOKEN] * len(tokens)


class Machine:
    """A language model all of whose tensors are fake and on a CUDA device. Its decoder is the fast one, with fused
    kernels; "plain": without these; "library": the library's module."""

    def __init__(
        self,
        loaded: Loaded,
        kind: type[LanguageModel] = Unread,
        backend: Backend | None = None,
        pages: int = 0,
        page_tokens: int = 0,
        decoder: str = "fused",
    ) -> None:
        self.device = Device()
        text, head, fast = self.device.copied((loaded.text, loaded.head, loaded.fast))
        if decoder == "fused":
            fast.pointwise = pointwise_triton.TritonPointwise()
        backend = attention_triton.TritonBackend(200) if backend is None else backend
        assert backend is not None
        size = page_tokens or backend.page_tokens
        loaded = loaded._replace(text=text, head=head, fast=None if decoder == "library" else fast)
        self.language = self.device.call(kind, loaded, pages or 1024 // size, size, 8, backend)

    def run(self, plan: Plan) -> Any:
        return self.device.call(self.language.run, plan)


# The kernels beside attention, and how many tensors each is given.
FUSED = {"_norm": 6, "_turn": 8, "_gate": 2}


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> dict[str, Launch]:
    launches = {name: Launch(tensors) for name, tensors in FUSED.items()}
    for name, launch in launches.items():
        monkeypatch.setattr(pointwise_triton, name, launch)
    return launches


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, fused: dict[str, Launch]) -> Launch:
    launch = Launch(10)
    monkeypatch.setattr(attention_triton, "_attend", launch)
    monkeypatch.setattr(attention_triton, "_merge", Launch(4))
    return launch


def served(name: str) -> Loaded:
    return load(model_path(name), EngineConfig())


SAMPLED = {
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.9,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "logit_bias": {7: -5.0, 8: 2.0},
    "min_tokens": 8,
}


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        *((name, "fused") for name in ("omni", "qwen3_vl", "llava", "gemma3")),
        ("omni", "plain"),
        ("qwen3_vl", "library"),
    ],
)
def test_streams_append_decode_and_sample(name: str, decoder: str, launch: Launch, fused: dict[str, Launch]) -> None:
    """Pictures go into a running reply beside another stream that decodes: positions on three axes and on one,
    features behind the first layers, windows, rows that see one another."""
    rig = Rig(served(name), page_tokens=16, kv_tokens=1024)
    machine = Machine(rig.core.loaded, decoder=decoder)
    core: Any = rig.core
    machine.language.spans = core.language.spans
    core.language = SimpleNamespace(run=machine.run, logits=None, spans=core.language.spans)
    one, other = Client(rig.open(format="live")), Client(rig.open(format="turns"))
    for client, how in ((one, SAMPLED), (other, {})):
        client.do("image")
        client.do("ask", max_tokens=12, **how)
    rig.core.scheduler.events()
    plans = []
    for turn in range(200):
        if turn == 6:
            one.do("image", 1)
        plan = rig.core.scheduler.plan()
        if plan is None:
            break
        plans.append(plan)
        rig.core.scheduler.commit(plan, machine.run(plan))
        rig.core.scheduler.events()
    decodes = [[sum(len(run) for run in feed.rows) for feed in plan.feeds] for plan in plans]
    assert [1, 1] in decodes and any(min(rows) == 1 < max(rows) for rows in decodes if len(rows) == 2)
    assert any(feed.draw and feed.draw.said and feed.draw.bias and feed.draw.barred for p in plans for feed in p.feeds)
    layers = rig.core.loaded.config.num_hidden_layers
    steps = len([plan for plan in plans if plan.feeds])
    assert len(launch.grids) == layers * steps
    launched = {name: len(kernel.grids) for name, kernel in fused.items()}
    if decoder != "fused":
        assert not any(launched.values())
    elif name == "omni":  # without another activation, and without embeddings for deeper layers
        assert launched == {"_norm": (2 * layers + 1) * steps, "_turn": layers * steps, "_gate": layers * steps}
    assert machine.device.watch.left == 0


@pytest.mark.parametrize("name", ["omni", "text"])
def test_streams_take_pages_from_each_other(name: str, launch: Launch) -> None:
    """Append, decode and sample in a cache that holds hardly more than one of the streams: pages go to the host and
    come back, and nothing waits for them."""
    rig = Rig(served(name), page_tokens=4, kv_tokens=200)
    machine = Machine(rig.core.loaded, pages=50, page_tokens=4)
    core: Any = rig.core
    machine.language.spans = core.language.spans
    core.language = SimpleNamespace(run=machine.run, logits=None, spans=core.language.spans)
    strangers(rig, 3, 30, with_media=name == "omni")
    client = Client(rig.open(format="live"))
    client.do("image" if name == "omni" else "text")
    client.do("ask", max_tokens=12, **SAMPLED)
    plans = []
    while (plan := rig.core.scheduler.plan()) is not None:
        plans.append(plan)
        rig.core.scheduler.commit(plan, machine.run(plan))
        rig.core.scheduler.check()
        rig.core.scheduler.events()
    saves = sum(len(plan.saves) for plan in plans)
    assert saves and any(plan.restores for plan in plans)
    assert machine.device.watch.left == 0


def rows(count: int) -> Rows:
    return Rows(np.full(count, TOKEN), np.arange(count)[None].repeat(3, 0))


PAGES: dict[str, Any] = {
    "saves": [(7, [1, 2])],
    "copies": [(0, 3)],
    "edits": [TableEdit(0, 0, [3, 4]), TableEdit(1, 0, [9])],
    "restores": [(7, [10, 11])],
    "drops": [7],
}
FEEDS = [Feed(1, 0, 20, [rows(1)], Draw()), Feed(2, 1, 0, [rows(6)], Draw(temperature=1.0, seed=3))]


def test_pages_are_saved_copied_and_brought_back(launch: Launch) -> None:
    """What is saved goes to pinned memory, and nothing waits for it."""
    machine = Machine(served("text"))
    result = machine.run(Plan(1, **PAGES, feeds=FEEDS))
    assert result.tokens == [TOKEN, TOKEN]
    assert machine.device.watch.left == 0
    assert len(launch.grids) == len(machine.language.cache.keys)


EMPTY: dict[str, Any] = {name: [] for name in PAGES}


def test_reading_would_be_noticed(launch: Launch) -> None:
    """The tokens of a real step are read, and the reference backend reads lengths."""
    for machine, read in (
        (Machine(served("text"), LanguageModel), "item"),
        (Machine(served("text"), backend=ReferenceBackend()), "__int__"),
    ):
        with pytest.raises(AssertionError, match=f"{read} waits for the device"):
            machine.run(Plan(1, **EMPTY, feeds=FEEDS))


def test_a_wrong_device_would_be_noticed(launch: Launch) -> None:
    machine = Machine(served("text"))
    machine.language.cache.tables = torch.zeros((8, 64), dtype=torch.int32)
    with pytest.raises((RuntimeError, AssertionError)):
        machine.run(Plan(1, **EMPTY, feeds=FEEDS))
