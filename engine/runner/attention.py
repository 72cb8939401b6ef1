"""Attention over paged keys and values: the door from `transformers` and the reference backend.

What comes in: a flattened batch of query rows (all streams' rows of one step, back to back), the pages of one layer,
and where each row's history lies. What goes out: the attended values and the log-sum-exp of each row. It knows no
streams and no models.

A row's history may be given in several parts (a shared prefix, a window); the parts are attended apart and merged by
their log-sum-exp (Flash-Decoding, and arXiv 2402.02082, section 4).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import numpy as np
import torch

from ...errors import ModelError
from .library import transformers
from .upload import upload

NAME = "penstock"


class Part:
    """One part of the rows' histories: row r attends to rows `[firsts[r], lengths[r])` of the page list
    `tables[slots[r]]`.

    tables `(sequences, pages)` int32, slots `(rows,)` int32, lengths and firsts `(rows,)` int32; firsts None: from row
    0 on. `runs` lists (start, stop, slot) of consecutive query rows of one sequence, in order; every row is in one, and
    neither lengths nor firsts fall inside one. `ends` are the lengths on the host, where they are known there. `kept`
    is what a backend has made of the part, for all layers.
    """

    def __init__(
        self,
        tables: torch.Tensor,
        slots: torch.Tensor,
        lengths: torch.Tensor,
        runs: list[tuple[int, int, int]],
        firsts: torch.Tensor | None = None,
        ends: np.ndarray | None = None,
    ) -> None:
        self.tables, self.slots, self.lengths, self.runs, self.firsts = tables, slots, lengths, runs, firsts
        self.ends = ends
        self.kept: dict[Hashable, Any] = {}

    def tiles(self, rows: int) -> torch.Tensor:
        """The runs in pieces of at most `rows` rows, on the rows' device: start, stop and slot, `(tiles, 3)` int32.

        They are made on the host, once for all layers.
        """
        if rows not in self.kept:
            pieces = [
                (first, min(first + rows, stop), slot)
                for start, stop, slot in self.runs
                for first in range(start, stop, rows)
            ]
            self.kept[rows] = upload(torch.tensor(pieces, dtype=torch.int32), self.lengths.device)
        return self.kept[rows]


class Backend(Protocol):
    """One way to attend. `page_tokens` is the page size it works best with."""

    page_tokens: int

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """query `(rows, heads, dim)`, keys and values `(pages, page_tokens, kv_heads, dim)`.

        Returns out `(rows, heads, dim)` and the log-sum-exp `(rows, heads)` float32 (-inf where a row's part is empty).
        """
        ...


class Step:
    """What the attention of one forward pass needs: where new rows are written and where each row looks.

    `windowed` gives the parts of layers whose rows see so many rows back, themselves included.
    """

    def __init__(
        self,
        backend: Backend,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        target: torch.Tensor,
        parts: list[Part],
        windowed: Callable[[int], list[Part]],
    ) -> None:
        self.backend = backend
        self.keys, self.values = keys, values  # one tensor per layer
        self.target = target  # (rows,) int64: pool row that each new row is written to
        self._parts = parts
        self._windowed = functools.cache(windowed)

    def parts(self, window: int | None) -> list[Part]:
        """Where each row looks in a layer of this window; None: in one that sees everything."""
        return self._parts if window is None else self._windowed(window)


class ReferenceBackend:
    """Slow and obvious: gathers each sequence's history and takes a softmax in float32. Off the CPU it waits for the
    device at each run, to learn how long the history is."""

    page_tokens = 16

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, heads, _ = query.shape
        size, groups = keys.shape[1], heads // keys.shape[2]
        out = torch.zeros_like(query)
        lse = query.new_full((rows, heads), float("-inf"), dtype=torch.float32)
        for start, stop, _ in part.runs:
            longest = int(part.lengths[start:stop].max())
            if longest == 0:
                continue
            pages = part.tables[int(part.slots[start]), : -(-longest // size)].long()
            key = keys[pages].flatten(0, 1)[:longest].repeat_interleave(groups, dim=1)
            value = values[pages].flatten(0, 1)[:longest].repeat_interleave(groups, dim=1)
            scores = torch.einsum("rhd,khd->rhk", query[start:stop].float(), key.float()) * scale
            places = torch.arange(longest, device=query.device)
            visible = places < part.lengths[start:stop, None]
            if part.firsts is not None:
                visible &= places >= part.firsts[start:stop, None]
            scores = scores.masked_fill(~visible[:, None], float("-inf"))
            lse[start:stop] = scores.logsumexp(-1)
            weights = (scores - lse[start:stop, :, None]).exp().nan_to_num(0.0)
            out[start:stop] = torch.einsum("rhk,khd->rhd", weights, value.float()).to(out.dtype)
        return out, lse


def merge(outs: list[torch.Tensor], lses: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """One softmax over all parts from each part's own: outs `(rows, heads, dim)`, lses `(rows, heads)`."""
    if len(outs) == 1:
        return outs[0], lses[0]
    stacked = torch.stack(lses)
    total = stacked.logsumexp(0)
    weights = (stacked - total).exp().nan_to_num(0.0)
    out = sum(out.float() * weight[..., None] for out, weight in zip(outs, weights, strict=True))
    assert isinstance(out, torch.Tensor)
    return out.to(outs[0].dtype), total


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    step: Step | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What every decoder layer calls: query `(1, heads, rows, dim)`; returns `(1, rows, heads, dim)`.

    The name is not registered for masks, so `attention_mask` is None: order is in the parts' lengths. A window counts
    rows of the cache, as the library's masks do.
    """
    assert step is not None and attention_mask is None
    layer: int = module.layer_idx  # type: ignore[assignment]
    if softcap is not None:
        raise ModelError(f"layer {layer}: expected plain scores, got scores capped at {softcap}: not served yet")
    keys, values = step.keys[layer], step.values[layer]
    keys.view(-1, *keys.shape[2:])[step.target] = key[0].transpose(0, 1)
    values.view(-1, *values.shape[2:])[step.target] = value[0].transpose(0, 1)
    rows = query[0].transpose(0, 1).contiguous()
    scale = rows.shape[-1] ** -0.5 if scaling is None else scaling
    attended = [step.backend.attend(rows, keys, values, part, scale) for part in step.parts(sliding_window)]
    out, _lse = merge([out for out, _ in attended], [lse for _, lse in attended])
    return out[None], None


transformers.AttentionInterface.register(NAME, paged_attention)
