"""`penstock::attend` as torch's tools see it: one operator that says what it writes, whatever backend is behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.engine.plan import Feed, Plan, TableEdit
from penstock.engine.runner.attention import Backend, Part, Reach, ReferenceBackend, Step, attend, number, operator
from penstock.engine.runner.attention_cpu import CpuBackend
from penstock.engine.runner.batch import batched
from penstock.engine.runner.language import LanguageModel
from penstock.engine.span import Rows
from penstock.errors import ModelError
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tests.fixtures.recipe import model_path

HEADS, KV_HEADS, DIM, PAGE, NEW = 4, 2, 16, 8, 20
BACKENDS = [CpuBackend(), ReferenceBackend()]
both = pytest.mark.parametrize("backend", BACKENDS, ids=["cpu", "reference"])


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def layer(backend: Backend, window: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Step]:
    """Query, keys and values of 20 new rows of one stream and one of another, after 13 and 30 rows; and their step."""
    places = torch.tensor([*range(13, 13 + NEW), 30], dtype=torch.int32)
    slots = torch.tensor([1] * NEW + [0], dtype=torch.int32)
    tables = torch.randperm(10, generator=torch.Generator().manual_seed(1)).int().view(2, 5)
    pages = tables[slots.long(), places // PAGE]
    firsts = None if window is None else (places + 1 - window).clamp(min=0)
    part = Part(tables, slots, places + 1, torch.tensor([[0, NEW], [NEW, NEW + 1]]), firsts)
    parts: dict[Reach, list[Part]] = {window: [backend.prepare(part, (places + 1).numpy(), HEADS // KV_HEADS)]}
    keys, values = drawn(10, PAGE, KV_HEADS, DIM), drawn(10, PAGE, KV_HEADS, DIM + 1)[..., 1:].contiguous()
    target = pages.long() * PAGE + places % PAGE
    new = [drawn(NEW + 1, heads, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    return new[0], new[1], new[2], Step(number(backend), [keys], [values], target, parts)


def arguments(backend: Backend, window: int | None = None) -> tuple[Any, ...]:
    query, key, value, step = layer(backend, window)
    return (query, key, value, step.keys[0], step.values[0], step.target, *step.seen(window)[0], 0.25, step.backend)


@both
@pytest.mark.parametrize("window", [None, 9])
def test_it_is_what_its_schema_says(backend: Backend, window: int | None) -> None:
    """What it writes, its shapes without values, and its place in a compiled graph."""
    torch.library.opcheck(operator, arguments(backend, window))


def test_without_values_it_gives_shapes_and_asks_no_backend() -> None:
    backend = ReferenceBackend()
    given = arguments(backend)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in given[:11]]
        out, lse = operator(*fakes[:10], None, [], 0.25, 0)
    assert isinstance(out, FakeTensor) and isinstance(lse, FakeTensor)
    real_out, real_lse = operator(*given)
    assert (out.shape, out.dtype) == (real_out.shape, real_out.dtype)
    assert (lse.shape, lse.dtype) == (real_lse.shape, real_lse.dtype)


@both
def test_parts_are_merged_and_new_rows_are_written_once(backend: Backend) -> None:
    """The first page of each history apart from the rest."""
    query, key, value, step = layer(backend)
    whole = attend(0, query, key, value, step, 0.25)
    keys = step.keys[0].flatten(0, 1)[step.target]
    assert torch.equal(keys, key)
    (part,) = step.parts[None]
    halves = [
        Part(part.tables, part.slots, part.lengths.clamp(max=PAGE), part.runs),
        Part(part.tables[:, 1:].contiguous(), part.slots, part.lengths - PAGE, part.runs),
    ]
    halves = [backend.prepare(half, None, HEADS // KV_HEADS) for half in halves]
    fresh = layer(backend)[3]
    out = attend(0, query, key, value, fresh._replace(parts={None: halves}, turns=[[lambda rows: rows]]), 0.25)
    assert torch.equal(fresh.keys[0], step.keys[0]) and torch.equal(fresh.values[0], step.values[0])
    torch.testing.assert_close(out, whole, rtol=0, atol=1e-5)


def test_a_window_that_a_step_was_not_made_for_is_refused() -> None:
    query, key, value, step = layer(ReferenceBackend(), 9)
    with pytest.raises(ModelError, match="expected a window of 9 rows, got 7"):
        attend(0, query, key, value, step, 0.25, 7)


class Written:
    """Compiles for nothing: keeps the graphs and runs them as they are."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.graphs.append(graph)
        return graph.forward


@pytest.mark.parametrize("name", ["text", "gemma3"])
def test_a_decoder_is_one_graph_with_one_operator_a_layer(name: str) -> None:
    """The library's own decoder, windows included, without a break; the numbers are those of the plain pass."""
    language = LanguageModel(load(model_path(name), EngineConfig()), 8, 16, 2, BACKENDS[0])
    feeds = []
    for slot, count in enumerate((5, 1)):
        rows = Rows(np.arange(3, 3 + count), np.arange(count, dtype=np.int64)[None].repeat(3, 0))
        feeds.append(Feed(slot, slot, 0, [rows], None))
    edits = [TableEdit(slot, 0, [4 * slot, 4 * slot + 1]) for slot in range(2)]
    language.run(Plan(1, [], [], edits, [], [], feeds))
    seen = Written()
    compiled = torch.compile(language._pass, fullgraph=True, backend=seen)
    ids = torch.tensor([3, 4, 5, 6, 7, 3])
    positions = torch.tensor([[0, 1, 2, 3, 4, 0]]).repeat(3, 1)
    with torch.inference_mode():
        step = language._attention(batched(feeds))
        plain = language._pass(ids, None, positions, step)
        assert torch.equal(compiled(ids, None, positions, step), plain)
    (graph,) = seen.graphs
    calls = [node for node in graph.graph.nodes if node.target in (operator, torch.ops.penstock.attend)]
    assert len(calls) == len(language.cache.keys)
