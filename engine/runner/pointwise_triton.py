"""What a decoder computes between its linear layers and attention, in Triton: one kernel in place of several operators.

The sum of a residual and its norm are one kernel; so are the norms and rotary positions of queries and keys, which
write keys and values where they belong in the cache; so is the gate of an MLP. Numbers are float32 inside, and are
rounded where they are written. What a kernel does not know, plain operators compute. Nothing here waits for the device.
Under `TRITON_INTERPRET=1`, set before Triton is imported, the kernels run on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from .pointwise import Norm, Pointwise, Turns

_TYPES = (torch.float32, torch.float16, torch.bfloat16)
# A program has one row of hidden states in its registers: no wider ones than these, which would not go in, and so many
# numbers a warp.
_WIDEST, _A_WARP = 8192, 512
_GATED = 1024  # numbers of an MLP that a program gates
_SILU = ("SiLU", "SiLUActivation")  # as torch and transformers name it; the trial at load sees what it computes


@triton.jit
def _rooted(rows, weight, eps, WIDTH: tl.constexpr):
    """A row in float32 over its root mean square. Rounded as IEEE has it: in float32 the trial at load sees the least
    error, and what is approximate by default has a larger one."""
    return tl.div_rn(rows, tl.sqrt_rn(tl.sum(rows * rows, 0) / WIDTH + eps)) * weight


@triton.jit
def _norm(
    hidden, out, after, weight, summed, normed, after_eps, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, ADDED: tl.constexpr, AFTER: tl.constexpr,
):  # fmt: skip
    """One row: summed = hidden + after(out) where ADDED, else hidden itself, which is not written; normed is its norm.
    AFTER: there is a norm `after`."""
    places = tl.arange(0, BLOCK)
    inside = places < WIDTH
    at = tl.program_id(0).to(tl.int64) * WIDTH + places
    row = tl.load(hidden + at, mask=inside, other=0.0)
    if ADDED:
        more = tl.load(out + at, mask=inside, other=0.0).to(tl.float32)
        if AFTER:
            more = _rooted(more, tl.load(after + places, mask=inside, other=0.0).to(tl.float32), after_eps, WIDTH)
        row = (row.to(tl.float32) + more).to(summed.dtype.element_ty)
        tl.store(summed + at, row, mask=inside)
    result = _rooted(row.to(tl.float32), tl.load(weight + places, mask=inside, other=0.0).to(tl.float32), eps, WIDTH)
    tl.store(normed + at, result.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def _turn(
    heads, weight, cos, sin, target, queries, keys, values, eps,
    QUERIES: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, TURNED: tl.constexpr, BLOCK: tl.constexpr,
    NORMED: tl.constexpr,
):  # fmt: skip
    """One row (axis 0) and head (axis 1). The first TURNED numbers of a query or key are turned: each with the number
    that lies half of TURNED away."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    places = tl.arange(0, BLOCK)
    inside, first = places < DIM, places < TURNED
    given = heads + (row * (QUERIES + 2 * KV_HEADS) + head) * DIM
    own = tl.load(given + places, mask=inside, other=0.0)
    written = (tl.load(target + row) * KV_HEADS - QUERIES) * DIM
    if head >= QUERIES + KV_HEADS:
        tl.store(values + written + (head - KV_HEADS) * DIM + places, own, mask=inside)
    else:
        far = tl.where(places < TURNED // 2, places + TURNED // 2, places - TURNED // 2)
        result = own.to(tl.float32)
        other = tl.load(given + far, mask=first, other=0.0).to(tl.float32)
        if NORMED:
            size = tl.sqrt_rn(tl.sum(result * result, 0) / DIM + eps)
            weights = weight + head * DIM
            result = tl.div_rn(result, size) * tl.load(weights + places, mask=inside, other=0.0).to(tl.float32)
            other = tl.div_rn(other, size) * tl.load(weights + far, mask=first, other=0.0).to(tl.float32)
        at = row * TURNED + places
        result *= tl.load(cos + at, mask=first, other=1.0).to(tl.float32)
        result += other * tl.load(sin + at, mask=first, other=0.0).to(tl.float32)
        if head < QUERIES:
            at = (row * QUERIES + head) * DIM + places
            tl.store(queries + at, result.to(queries.dtype.element_ty), mask=inside)
        else:
            tl.store(keys + written + head * DIM + places, result.to(keys.dtype.element_ty), mask=inside)


@triton.jit
def _gate(gate_up, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """silu(gate) * up of one row (axis 0), BLOCK numbers (axis 1)."""
    row, places = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < WIDTH
    gate = tl.load(gate_up + row * 2 * WIDTH + places, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + places, mask=inside, other=0.0).to(tl.float32)
    result = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * WIDTH + places, result.to(out.dtype.element_ty), mask=inside)


class TritonPointwise(Pointwise):
    """In fused kernels, over float32, float16 and bfloat16."""

    def normed(self, rows: torch.Tensor, norm: Norm) -> torch.Tensor:
        return _launch_norm(rows, None, None, norm)[1] if _takes(rows, norm) else super().normed(rows, norm)

    def added(
        self, hidden: torch.Tensor, out: torch.Tensor, after: Norm | None, norm: Norm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if _takes(hidden, norm) and (after is None or _takes(out, after)):
            return _launch_norm(hidden, out, after, norm)
        return super().added(hidden, out, after, norm)

    def turned(
        self,
        heads: torch.Tensor,
        norm: Norm | None,
        turns: Turns,
        keys: torch.Tensor,
        values: torch.Tensor,
        target: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As in `Pointwise`; keys and values are written here, none is returned."""
        if heads.dtype not in _TYPES or keys.dtype != heads.dtype or (norm is not None and norm.centred):
            return super().turned(heads, norm, turns, keys, values, target)
        rows, every, dim = heads.shape
        (cos, sin), kv_heads = turns, keys.shape[2]
        queries = heads.new_empty((rows, every - 2 * kv_heads, dim))
        launch: Any = _turn  # compiled at its first call for each set of sizes
        launch[rows, every](
            heads.contiguous(), cos if norm is None else norm.weight, cos, sin, target, queries, keys, values,
            0.0 if norm is None else norm.eps,
            QUERIES=queries.shape[1], KV_HEADS=kv_heads, DIM=dim, TURNED=cos.shape[-1], BLOCK=_power(dim),
            NORMED=norm is not None, num_warps=1,
        )  # fmt: skip
        return queries, heads[:0, :kv_heads], heads[:0, :kv_heads]

    def gated(self, gate_up: torch.Tensor, act: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if gate_up.dtype not in _TYPES or type(act).__name__ not in _SILU:
            return super().gated(gate_up, act)
        rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = gate_up.new_empty((rows, width))
        launch: Any = _gate
        launch[rows, triton.cdiv(width, _GATED)](gate_up.contiguous(), out, WIDTH=width, BLOCK=_GATED)
        return out


def _takes(rows: torch.Tensor, norm: Norm) -> bool:
    return rows.dtype in _TYPES and not norm.centred and norm.weight.dim() == 1 and rows.shape[1] <= _WIDEST


def _launch_norm(
    hidden: torch.Tensor, out: torch.Tensor | None, after: Norm | None, norm: Norm
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, width = hidden.shape
    hidden = hidden.contiguous()
    summed, normed = hidden if out is None else torch.empty_like(hidden), torch.empty_like(hidden)
    block = _power(width)
    launch: Any = _norm
    launch[rows,](
        hidden, hidden if out is None else out.contiguous(), norm.weight if after is None else after.weight,
        norm.weight, summed, normed, 0.0 if after is None else after.eps, norm.eps,
        WIDTH=width, BLOCK=block, ADDED=out is not None, AFTER=after is not None,
        num_warps=min(16, max(1, block // _A_WARP)),
    )  # fmt: skip
    return summed, normed


def _power(count: int) -> int:
    """The least power of two that is no smaller."""
    return 1 << (count - 1).bit_length()
