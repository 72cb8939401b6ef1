"""The Triton kernel against the reference backend: in Triton's interpreter where there is no device, else on it.

Ragged batches of decode rows and appended rows over scattered pages; every shape that a served model has.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from penstock.engine.runner.attention import Part, ReferenceBackend
from penstock.engine.runner.graphs import padded
from penstock.engine.runner.narrow import widened

from tests.cuda.ragged import Ragged, sequences

attention_triton: Any = pytest.importorskip(
    "penstock.engine.runner.attention_triton", reason="Triton comes for Linux only"
)

# The same cases are run by default, and asked for with `-m gpu`.
either = pytest.mark.parametrize("asked", ["by default", pytest.param("for a device", marks=pytest.mark.gpu)])
# Programs that a device should have at once: of few, none is split; of many, each history is, as far as it goes.
PROGRAMS = st.sampled_from([1, 8, 1_000])
shapes = st.fixed_dictionaries(
    {
        "shape": sequences,
        "seed": st.integers(0, 1000),
        "page_tokens": st.sampled_from([4, 16, 64]),
        "kv_heads": st.integers(1, 3),
        "group": st.integers(1, 8),
        "dim": st.sampled_from([16, 64, 80, 128]),
        "wide": st.none() | st.sampled_from([16, 48, 96]),
        "dtype": st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
        "kv_dtype": st.sampled_from(["auto", "auto", "int8", "fp8"]),
        "window": st.none() | st.integers(1, 90),
        "mutual": st.integers(0, 30),
        "cap": st.sampled_from([0.0, 0.5, 5.0]),
    }
)
# What rounding may change, as a share: weights, a part's result, the merged result, the reference's. The interpreter
# cuts bfloat16 off where a device rounds it, so each of the first two counts twice.
EPSILON = {torch.float32: 2**-18, torch.float16: 6 * 2**-11, torch.bfloat16: 6 * 2**-8}


def assert_close(batch: Ragged, got: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The error is a share of the weighted sizes of the values."""
    out, lse = batch.attend(ReferenceBackend())
    sizes, _ = batch.attend(ReferenceBackend(), widened(batch.values, torch.float32).abs())
    assert got[0].dtype == batch.query.dtype and got[1].dtype == torch.float32
    error = (got[0].float() - out.float()).abs()
    assert bool((error <= EPSILON[batch.query.dtype] * sizes.float() + 1e-6).all()), float(error.max())
    torch.testing.assert_close(got[1], lse, rtol=0, atol=2e-5)


@either
@given(case=shapes, programs=PROGRAMS)
def test_any_shape(asked: str, case: dict[str, Any], programs: int) -> None:
    """Rows of pages behind a sequence's length, and entries of its table behind its pages, are never read."""
    batch = Ragged(**case)
    assert_close(batch, batch.attend(attention_triton.TritonBackend(programs)))


@either
@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_a_cache_in_eight_bits(asked: str, kv_dtype: str) -> None:
    """In pieces and whole, for every type of query."""
    for dtype in EPSILON:
        batch = Ragged([(520, 1), (30, 20)], seed=2, kv_heads=1, dim=80, dtype=dtype, kv_dtype=kv_dtype)
        for programs in (1, 1_000):
            assert_close(batch, batch.attend(attention_triton.TritonBackend(programs)))


@either
@settings(max_examples=settings().max_examples // 2)  # an example takes a second in the interpreter
@given(case=shapes, programs=PROGRAMS, pages=st.integers(0, 6))
def test_two_parts_are_merged_to_one(asked: str, case: dict[str, Any], programs: int, pages: int) -> None:
    """Either part may be empty for a row: then it is zero there and its log-sum-exp -inf."""
    batch, backend = Ragged(**case), attention_triton.TritonBackend(programs)
    halves = batch.halves(pages)
    assert_close(batch, batch.attend_in(backend, halves))
    for part in halves:
        out, lse = batch.attend_in(backend, [part])
        firsts = 0 if part.firsts is None else part.firsts
        empty = part.lengths <= firsts
        assert bool(lse[empty].eq(float("-inf")).all()) and bool(out[empty].eq(0).all())
        assert bool(lse[~empty].isfinite().all())


@either
@settings(max_examples=5)
@example(case={"shape": [(80, 3), (9, 1)], "seed": 1, "window": 20}, programs=1000)
@given(case=shapes, programs=PROGRAMS)
def test_what_was_prepared_for_one_run_attends_to_others(asked: str, case: dict[str, Any], programs: int) -> None:
    """As in a recording, whose number of rows is fixed: those of another step, and others behind them. Some tiles are
    of no row."""
    batch, backend = Ragged(**case), attention_triton.TritonBackend(programs)
    count = len(batch.ends)
    more = padded(max(count, 16)) - count
    pad = torch.nn.functional.pad
    slots, lengths = (pad(row, (0, more), value=int(row[0])) for row in (batch.part.slots, batch.part.lengths))
    firsts = None if batch.part.firsts is None else pad(batch.part.firsts, (0, more), value=int(batch.part.firsts[0]))
    whole = Part(batch.part.tables, slots, lengths, torch.tensor([[0, count + more]]), firsts)
    prepared = backend.prepare(whole, None, batch.group)
    runs = torch.cat([batch.part.runs, torch.tensor([[count, count + more]])])
    assert backend.refill(prepared.made, batch.part._replace(runs=runs), batch.group)
    query = pad(batch.query, (0, 0, 0, 0, 0, more))
    out, lse = backend.attend(query, batch.keys, batch.values, prepared, batch.scale, batch.cap)
    assert_close(batch, (out[:count], lse[:count]))


def test_more_tiles_than_were_prepared_are_refused() -> None:
    """Sixteen rows of streams of their own, where a recording has room for one long run and four more pieces."""
    batch, backend = Ragged([(5, 1)] * 16, seed=1), attention_triton.TritonBackend(8)
    prepared = backend.prepare(batch.part._replace(runs=torch.tensor([[0, 16]])), None, batch.group)
    assert not backend.refill(prepared.made, batch.part, batch.group)


@either
@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_histories_are_split_and_merged(asked: str, dtype: torch.dtype, window: int | None) -> None:
    """A decode row behind 2,000 rows, one behind few, and a run: with and without a split."""
    batch = Ragged([(2_000, 1), (40, 1), (700, 20)], seed=1, dim=64, dtype=dtype, window=window)
    for programs in (1, 60, 10_000):
        assert_close(batch, batch.attend(attention_triton.TritonBackend(programs)))
