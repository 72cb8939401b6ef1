"""The backends against each other and against torch's own attention, on ragged batches over scattered pages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.runner.attention import Backend, Part, ReferenceBackend, merge
from penstock.engine.runner.attention_cpu import CpuBackend
from penstock.engine.runner.attention_cpu_long import _STRETCH_ROWS, _stretches
from penstock.engine.runner.threads import compute_threads
from penstock.errors import ModelError

HEADS, KV_HEADS, DIM = 4, 2, 16
SCALE = DIM**-0.5
# Of each sequence: rows of history, and how many of the last of them are queried.
shapes = st.lists(st.tuples(st.integers(1, 70), st.integers(1, 20)), min_size=1, max_size=4)
sizes = st.sampled_from([4, 16, 256])


class Batch:
    """Queries, and keys and values in pages that are dealt out at random."""

    def __init__(
        self,
        shape: list[tuple[int, int]],
        size: int,
        seed: int,
        dtype: torch.dtype = torch.float32,
        window: int | None = None,
        mutual: int = 0,
        cap: float = 0.0,
    ) -> None:
        """`window`: rows that each row sees, itself included; `mutual`: so many of a sequence's last rows, one left
        out, see one another; `cap`: of the scores."""
        self.cap = cap
        noise = torch.Generator().manual_seed(seed)
        pages = sum(-(-history // size) for history, _ in shape)
        order = torch.randperm(pages + 3, generator=noise).tolist()
        slots = len(shape) + 1
        self.tables = torch.full((slots, pages + 3), 10_000, dtype=torch.int32)
        self.keys = torch.full((pages + 3, size, KV_HEADS, DIM), float("nan"), dtype=dtype)
        self.values = self.keys.clone()
        self.plain = []
        self.seen: list[list[tuple[int, int]]] = []  # of each queried row, the first it sees and where that ends
        runs, slots_of_rows, lengths, firsts, queries = [], [], [], [], []
        for number, (history, asked) in enumerate(shape):
            asked = min(asked, history)
            key, value = (torch.randn(history, KV_HEADS, DIM, generator=noise).to(dtype) for _ in range(2))
            query = torch.randn(asked, HEADS, DIM, generator=noise).to(dtype)
            self.plain.append((query, key, value))
            slot = slots - 1 - number
            for index in range(-(-history // size)):
                page = order.pop()
                self.tables[slot, index] = page
                here = slice(index * size, min(history, (index + 1) * size))
                self.keys[page, : here.stop - here.start] = key[here]
                self.values[page, : here.stop - here.start] = value[here]
            start = len(lengths)
            sees = list(range(history - asked + 1, history + 1))
            together = min(mutual, asked - 1)
            sees[asked - 1 - together : asked - 1] = [history - 1] * together
            begins = [max(0, place - window) if window else 0 for place in range(history - asked + 1, history + 1)]
            self.seen.append(list(zip(begins, sees, strict=True)))
            lengths += sees
            slots_of_rows += [slot] * asked
            firsts += begins
            runs.append((start, len(lengths)))
            queries.append(query)
        self.query = torch.cat(queries)
        self.lengths = torch.tensor(lengths, dtype=torch.int32)
        self.slots = torch.tensor(slots_of_rows, dtype=torch.int32)
        begins = torch.tensor(firsts, dtype=torch.int32) if window else None
        self.part = Part(self.tables, self.slots, self.lengths, torch.tensor(runs), begins)

    def attend(self, backend: Backend, part: Part | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        part = backend.prepare(part or self.part, None, HEADS // KV_HEADS)
        return backend.attend(self.query, self.keys, self.values, part, SCALE, self.cap)


def plainly(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """By the definition, in float64."""
    outs, lses = [], []
    for (query, key, value), seen in zip(batch.plain, batch.seen, strict=True):
        key, value = (rows.double().repeat_interleave(HEADS // KV_HEADS, 1) for rows in (key, value))
        scores = torch.einsum("rhd,khd->hrk", query.double(), key) * SCALE
        if batch.cap:
            scores = (scores / batch.cap).tanh() * batch.cap
        places = torch.arange(scores.shape[2])
        mask = torch.stack([(places >= first) & (places < stop) for first, stop in seen])
        scores = scores.masked_fill(~mask, float("-inf"))
        outs.append(torch.einsum("hrk,khd->rhd", scores.softmax(-1), value))
        lses.append(scores.logsumexp(-1).T)
    return torch.cat(outs), torch.cat(lses)


@pytest.mark.parametrize("backend", [CpuBackend(), ReferenceBackend()], ids=["cpu", "reference"])
@given(shape=shapes, size=sizes, seed=st.integers(0, 1000))
def test_float32(backend: Backend, shape: list[tuple[int, int]], size: int, seed: int) -> None:
    """Rows of pages behind a sequence's length, and entries of its table behind its pages, are never read."""
    batch = Batch(shape, size, seed)
    out, lse = batch.attend(backend)
    expected_out, expected_lse = plainly(batch)
    torch.testing.assert_close(out.double(), expected_out, rtol=0, atol=1e-5)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", [CpuBackend(), ReferenceBackend()], ids=["cpu", "reference"])
@given(
    shape=shapes,
    size=sizes,
    seed=st.integers(0, 1000),
    window=st.none() | st.integers(1, 70),
    mutual=st.integers(0, 20),
    cap=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_windows_and_rows_that_see_one_another(
    backend: Backend, shape: list[tuple[int, int]], size: int, seed: int, window: int | None, mutual: int, cap: float
) -> None:
    """Also where scores are capped."""
    batch = Batch(shape, size, seed, window=window, mutual=mutual, cap=cap)
    out, lse = batch.attend(backend)
    expected_out, expected_lse = plainly(batch)
    torch.testing.assert_close(out.double(), expected_out, rtol=0, atol=1e-5)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", [CpuBackend(), ReferenceBackend()], ids=["cpu", "reference"])
@given(shape=shapes, size=sizes, seed=st.integers(0, 1000))
def test_bfloat16(backend: Backend, shape: list[tuple[int, int]], size: int, seed: int) -> None:
    """Sums are taken in float32: the only error is the rounding of what comes out. For a long run the CPU rounds the
    weights as well, as torch's own kernel does."""
    batch = Batch(shape, size, seed, torch.bfloat16)
    out, lse = batch.attend(backend)
    expected_out, expected_lse = plainly(batch)
    assert out.dtype == torch.bfloat16
    weights = 2**-7 * float(batch.values.nan_to_num().abs().max()) if isinstance(backend, CpuBackend) else 1e-5
    torch.testing.assert_close(out.double(), expected_out, rtol=2**-8, atol=weights)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", [CpuBackend(), ReferenceBackend()], ids=["cpu", "reference"])
@given(shape=shapes, size=st.sampled_from([4, 16]), pages=st.integers(0, 6), seed=st.integers(0, 1000))
def test_two_parts_are_merged_to_one(
    backend: Backend, shape: list[tuple[int, int]], size: int, pages: int, seed: int
) -> None:
    """The first pages of every history apart from the rest; either part may be empty for a row."""
    batch = Batch(shape, size, seed)
    head = batch.lengths.clamp(max=pages * size)
    first = Part(batch.tables, batch.slots, head, batch.part.runs)
    rest = Part(batch.tables[:, pages:].contiguous(), batch.slots, batch.lengths - head, batch.part.runs)
    parts = [batch.attend(backend, part) for part in (first, rest)]
    empty = batch.lengths - head == 0
    assert bool(parts[1][1][empty].eq(float("-inf")).all()) and bool(parts[1][0][empty].eq(0).all())
    out, lse = merge([out for out, _ in parts], [lse for _, lse in parts])
    whole_out, whole_lse = batch.attend(backend)
    torch.testing.assert_close(out, whole_out, rtol=0, atol=1e-5)
    torch.testing.assert_close(lse, whole_lse, rtol=0, atol=1e-5)


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), shares=st.integers(2, 5))
@settings(max_examples=20)
def test_shares_of_several_threads_are_those_of_one(counts: list[int], shares: int, monkeypatch) -> None:
    generator = torch.Generator().manual_seed(sum(counts))
    keys, values = (torch.randn(len(counts) * 2, 32, 2, 8, generator=generator) for _ in range(2))
    rows = len(counts)
    part = Part(
        torch.arange(2 * rows, dtype=torch.int32).view(rows, 2),
        torch.arange(rows, dtype=torch.int32),
        torch.tensor(counts, dtype=torch.int32),
        torch.tensor([(row, row + 1) for row in range(rows)]),
    )
    part = CpuBackend().prepare(part, None, 2)
    query = torch.randn(rows, 4, 8, generator=generator)
    alone = CpuBackend().attend(query, keys, values, part, 0.3)
    monkeypatch.setattr("penstock.engine.runner.attention_cpu._SHARED_WORK", 0)
    shared = CpuBackend(shares).attend(query, keys, values, part, 0.3)
    monkeypatch.undo()
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


def test_threads_are_what_the_configuration_says_then_the_environment(monkeypatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("PENSTOCK_THREADS", "3")
        assert compute_threads(EngineConfig(threads=2)) == 2 == torch.get_num_threads()
        assert compute_threads(EngineConfig()) == 3 == torch.get_num_threads()
        monkeypatch.setenv("PENSTOCK_THREADS", "some")
        with pytest.raises(ModelError, match="PENSTOCK_THREADS: expected a whole number of at least 1, got 'some'"):
            compute_threads(EngineConfig())
        monkeypatch.delenv("PENSTOCK_THREADS")
        assert compute_threads(EngineConfig()) == 3  # what torch has
    finally:
        torch.set_num_threads(before)


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=5), seed=st.integers(0, 99), bf16=st.booleans())
def test_stretches_of_pages_are_read_where_they_lie(cuts: list[int], seed: int, bf16: bool) -> None:
    """However a history is scattered over the pool, each of its rows is seen once; long stretches are views."""
    size, noise = 32, torch.Generator().manual_seed(seed)
    order = torch.randperm(len(cuts), generator=noise).tolist()
    starts = np.cumsum([0, *(count + 1 for count in cuts)])
    pages = np.concatenate([np.arange(int(starts[place]), int(starts[place]) + cuts[place]) for place in order])
    keys = torch.randn(int(starts[-1]), size, 1, 8, generator=noise).to(torch.bfloat16 if bf16 else torch.float32)
    found = _stretches(keys, keys, pages)
    seen = torch.cat([key for key, _ in found]).float().sort(0).values
    assert torch.equal(seen, keys[torch.from_numpy(pages)].flatten(0, 1).float().sort(0).values)
    shared = [key.untyped_storage().data_ptr() == keys.untyped_storage().data_ptr() for key, _ in found]
    assert sum(shared) == sum(count * size >= _STRETCH_ROWS for count in cuts)
    assert shared.count(False) <= 1
