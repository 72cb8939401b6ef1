"""What a decoder computes between its linear layers and attention: norms, rotary positions, the gate of an MLP.

In: rows and weights. Out: rows. By plain operators of torch, on any device; pointwise_triton.py has kernels for the
same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

# Cosines and signed sines `(rows, 1, n)` of the first n numbers of each head.
Turns = tuple[torch.Tensor, torch.Tensor]


class Norm(NamedTuple):
    """A norm over the last axis. weight `(width,)`, or `(heads, width)` where each head has its own. `centred`: a
    LayerNorm, with mean and bias; else root mean square. `wide`: the weight is in float32, rounding comes last."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float
    centred: bool = False
    wide: bool = False

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        width = rows.shape[-1:]
        if self.centred:
            return functional.layer_norm(rows, width, self.weight, self.bias, self.eps)
        given = rows.float() if self.wide and rows.dtype != torch.float64 else rows
        if self.weight.dim() == 1:
            return functional.rms_norm(given, width, self.weight, self.eps).to(rows.dtype)
        return (functional.rms_norm(given, width, None, self.eps) * self.weight).to(rows.dtype)


class Pointwise:
    """One operator of torch after the other."""

    def normed(self, rows: torch.Tensor, norm: Norm) -> torch.Tensor:
        """rows `(rows, width)` through a norm with one weight for all rows."""
        return norm(rows)

    def added(
        self, hidden: torch.Tensor, out: torch.Tensor, after: Norm | None, norm: Norm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden + after(out), and the norm of that; both `(rows, width)`."""
        hidden = hidden + (out if after is None else after(out))
        return hidden, norm(hidden)

    def turned(
        self,
        heads: torch.Tensor,
        norm: Norm | None,
        turns: Turns,
        keys: torch.Tensor,
        values: torch.Tensor,
        target: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values of new rows, `heads` `(rows, queries + 2 * kv_heads, dim)`: queries and keys through
        `norm`, whose weight is `(queries + kv_heads, dim)`, and turned.

        Returns queries `(rows, queries, dim)`, and the keys and values `(n, kv_heads, dim)` that are still to be
        written to the pool rows `target` `(rows,)` of the pages `keys` and `values`: those of all rows, or of none.
        """
        kv_heads = keys.shape[2]
        both, new_values = heads.split((heads.shape[1] - kv_heads, kv_heads), 1)
        if norm is not None:
            both = norm(both)
        cos, sin = turns
        moved = both[..., : cos.shape[-1]]
        moved = torch.addcmul(moved * cos, moved.roll(cos.shape[-1] // 2, -1), sin)
        if cos.shape[-1] < both.shape[-1]:
            moved = torch.cat([moved, both[..., cos.shape[-1] :]], -1)
        queries, new_keys = moved.split((heads.shape[1] - 2 * kv_heads, kv_heads), 1)
        return queries, new_keys, new_values

    def gated(self, gate_up: torch.Tensor, act: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """act(gate) * up, `(rows, width)`, of both back to back, `(rows, 2 * width)`."""
        gate, up = gate_up.chunk(2, 1)
        return act(gate) * up
