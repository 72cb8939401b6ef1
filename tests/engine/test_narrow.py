"""Rows in eight bits: how far they may be from what they were, and that both backends read them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.runner.attention import Backend, ReferenceBackend, operator
from penstock.engine.runner.attention_cpu import CpuBackend
from penstock.engine.runner.narrow import KV_DTYPES, SCALE_BYTES, narrowed, widened, width, write
from penstock.errors import ModelError

from tests.engine.test_attention import Batch, plainly, shapes
from tests.engine.test_attention_operator import arguments
from tests.fixtures.loaded import served

kinds = pytest.mark.parametrize("kind", KV_DTYPES)
BACKENDS = [CpuBackend(), ReferenceBackend()]


def heads(seed: int, *shape: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@kinds
@given(st.integers(1, 9), st.integers(1, 3), st.sampled_from([4, 16, 80]), st.floats(1e-20, 1e20), st.integers(0, 99))
def test_a_row_that_is_read_back_is_within_half_a_step(
    kind: str, rows: int, count: int, dim: int, size: float, seed: int
) -> None:
    """A step of int8 is a 127th of the largest number of its head. One of e4m3 is an eighth of the power of two below
    a number, and never smaller than 2^-9 of the scale."""
    given_rows = heads(seed, rows, count, dim, size=size)
    given_rows[0, 0, 0] *= 1000
    stored = narrowed(given_rows, KV_DTYPES[kind])
    assert stored.shape == (rows, count, width(dim, KV_DTYPES[kind])) == (rows, count, dim + SCALE_BYTES)
    assert stored.dtype.itemsize == 1
    exact, back = given_rows.double(), widened(stored, torch.float32).double()
    largest = exact.abs().amax(-1, keepdim=True)
    if kind == "int8":
        step = largest / 127
    else:
        step = (
            torch.maximum(2.0 ** (exact.abs() / largest * 448).log2().floor() / 8, torch.tensor(2.0**-9))
            * largest
            / 448
        )
    assert bool(((back - exact).abs() <= step / 2 * (1 + 1e-5)).all())
    alone = torch.cat([narrowed(row[None], KV_DTYPES[kind]) for row in given_rows])
    assert torch.equal(alone, stored)


@kinds
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_so_and_changes_no_other_head(kind: str, bad: float) -> None:
    rows = torch.ones(2, 2, 8)
    rows[0, 1, 3], rows[1, 0] = bad, 0.0
    back = widened(narrowed(rows, KV_DTYPES[kind]), torch.float32)
    assert not back[0, 1].isfinite().any()
    assert torch.equal(back[0, 0], rows[0, 0]) and torch.equal(back[1], rows[1])


@kinds
@pytest.mark.parametrize("backend", BACKENDS, ids=["cpu", "reference"])
@given(
    shape=shapes,
    size=st.sampled_from([4, 32]),
    seed=st.integers(0, 1000),
    window=st.none() | st.integers(1, 70),
    mutual=st.integers(0, 20),
)
def test_backends_attend_to_what_the_rows_stand_for(
    kind: str,
    backend: Backend,
    shape: list[tuple[int, int]],
    size: int,
    seed: int,
    window: int | None,
    mutual: int,
) -> None:
    """Exactly, but for the rounding of float32. Rows that nobody has written are not finite, and are not read."""
    batch, dtype = Batch(shape, size, seed, window=window, mutual=mutual), KV_DTYPES[kind]
    batch.keys, batch.values = narrowed(batch.keys, dtype), narrowed(batch.values, dtype)
    batch.plain = [
        (query, *(widened(narrowed(rows, dtype), torch.float32) for rows in (key, value)))
        for query, key, value in batch.plain
    ]
    out, lse = batch.attend(backend)
    expected_out, expected_lse = plainly(batch)
    torch.testing.assert_close(out.double(), expected_out, rtol=0, atol=1e-5)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=0, atol=1e-5)


@kinds
@pytest.mark.parametrize("backend", BACKENDS, ids=["cpu", "reference"])
def test_the_operator_is_what_its_schema_says(kind: str, backend: Backend) -> None:
    query, key, value, keys, values, *rest = arguments(backend)
    pools = [narrowed(pool, KV_DTYPES[kind]) for pool in (keys, values)]
    torch.library.opcheck(operator, (query, key, value, *pools, *rest))


def test_rows_go_where_they_belong_and_nowhere_else() -> None:
    pool, rows = torch.zeros(3, 4, 2, 12, dtype=torch.int8), heads(1, 2, 2, 8)
    write(pool, torch.tensor([9, 2]), rows)
    written = pool.flatten(0, 1)
    assert torch.equal(written[[9, 2]], narrowed(rows, torch.int8))
    assert not written[[0, 1, 3, 4, 5, 6, 7, 8, 10, 11]].any()


def test_long_runs_are_put_into_floats_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows are in floats at once, what comes out is the same."""
    batch = Batch([(70, 20), (64, 20)], 4, 3)
    batch.keys, batch.values = narrowed(batch.keys, torch.int8), narrowed(batch.values, torch.int8)
    whole = batch.attend(CpuBackend())
    monkeypatch.setattr("penstock.engine.runner.attention_cpu_long._WIDENED_ROWS", 7)
    pieces = batch.attend(CpuBackend())
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ModelError, match="kv_dtype: expected auto, int8 or fp8, got 'int4'"):
        Core(served("text"), EngineConfig(kv_dtype="int4"))
    with pytest.raises(ModelError, match="kv_dtype int8: expected another backend than varlen"):
        Core(served("text"), EngineConfig(kv_dtype="int8", backend="varlen"))
    with pytest.raises(ModelError, match="kv_dtype: expected heads of a multiple of 4 numbers for eight bits, got 6"):
        width(6, torch.int8)
