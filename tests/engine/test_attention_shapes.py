"""The CPU backend on head sizes, groups and page sizes of many models; what one layer writes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.runner import attention_cpu
from penstock.engine.runner.attention import Part, Reach, ReferenceBackend, Step, number, paged_attention
from penstock.engine.runner.attention_cpu import CpuBackend


@given(
    shape=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=4),
    size=st.sampled_from([4, 6, 16, 32, 256]),
    dim=st.sampled_from([8, 64, 80, 128]),
    wide=st.none() | st.sampled_from([8, 48, 96]),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    far=st.sampled_from([8, 512]),
)
def test_a_layer_writes_its_rows_and_attends_to_them(
    shape: list[tuple[int, int]],
    size: int,
    dim: int,
    wide: int | None,
    kv_heads: int,
    group: int,
    dtype: torch.dtype,
    far: int,
) -> None:
    """Rows that nobody owns hold NaN: they are neither read nor written. Both backends say the same. Values may be
    `wide`, keys otherwise. `far`: from which history on heads of their own go through the matrix kernel."""
    wide = wide or dim
    noise = torch.Generator().manual_seed(dim + size)
    counts = [-(-(history + new) // size) for history, new in shape]
    pages = sum(counts) + 2
    order = torch.randperm(pages, generator=noise).int()
    tables = torch.full((len(shape), pages), 10_000, dtype=torch.int32)
    target, slots, lengths, runs, past, used = [], [], [], [], [], 0
    for slot, ((history, new), count) in enumerate(zip(shape, counts, strict=True)):
        tables[slot, :count] = order[used : used + count]
        used += count
        rows = [int(tables[slot, place // size]) * size + place % size for place in range(history + new)]
        past += rows[:history]
        runs.append((len(target), len(target) + new))
        target += rows[history:]
        slots += [slot] * new
        lengths += range(history + 1, history + new + 1)
    part = Part(tables, torch.tensor(slots).int(), torch.tensor(lengths).int(), torch.tensor(runs))

    def drawn(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=noise).to(dtype)

    query, key = (drawn(1, heads, len(target), dim) for heads in (kv_heads * group, kv_heads))
    value = drawn(1, kv_heads, len(target), wide)
    before = [torch.full((pages * size, kv_heads, numbers), float("nan"), dtype=dtype) for numbers in (dim, wide)]
    for pool in before:
        pool[past] = drawn(len(past), *pool.shape[1:])
    layer: Any = SimpleNamespace(layer_idx=0)
    outs = []
    for backend in (CpuBackend(), ReferenceBackend()):
        keys, values = (pool.clone().view(pages, size, kv_heads, -1) for pool in before)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(attention_cpu, "_LONG_HISTORY", far)
            parts: dict[Reach, list[Part]] = {None: [backend.prepare(part, None, group)]}
        step = Step(number(backend), [keys], [values], torch.tensor(target), parts)
        outs.append(paged_attention(layer, query, key, value, None, step=step)[0].float())
        for written, new, pool in zip((keys, values), (key, value), before, strict=True):
            expected = pool.clone()
            expected[target] = new[0].transpose(0, 1)
            assert torch.equal(written.flatten(0, 1).nan_to_num(7.0), expected.nan_to_num(7.0))
    if dtype == torch.float32:
        torch.testing.assert_close(outs[0], outs[1], rtol=2e-5, atol=2e-5)
    else:  # the weights are rounded too, as in torch's own kernel
        torch.testing.assert_close(outs[0], outs[1], rtol=2**-7, atol=2**-7 * float(value.abs().max()))
