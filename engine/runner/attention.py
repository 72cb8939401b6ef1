"""Attention over paged keys and values: the operator, the door from `transformers`, and the reference backend.

What comes in: a flattened batch of query rows (all streams' rows of one step, back to back), the pages of one layer,
and where each row's history lies. What goes out: the attended values and the log-sum-exp of each row. It knows no
streams and no models.

A `Step` is made once, before the forward pass, and holds tensors. Each layer calls `attend`, which calls the operator
`penstock::attend` with tensors and plain numbers only. So a compiler, fake tensors and recorded graphs see one call a
layer, whatever backend computes it.

A row's history may be given in several parts (a shared prefix, a window); the parts are attended apart and merged by
their log-sum-exp (Flash-Decoding, and arXiv 2402.02082, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

import numpy as np
import torch

from ...errors import ModelError
from .library import transformers
from .narrow import numbers, widened, write

NAME = "penstock"


# Queries `(rows, heads, dim)`, turned.
Turn = Callable[[torch.Tensor], torch.Tensor]


class Part(NamedTuple):
    """One part of the rows' histories: row r attends to rows `[firsts[r], lengths[r])` of the page list
    `tables[slots[r]]`.

    tables `(sequences, pages)` int32, slots `(rows,)` int32, lengths and firsts `(rows,)` int32; firsts None: from row
    0 on. `runs` `(runs, 2)` int64 lies on the host: start and stop of consecutive query rows of one sequence, in order.
    Every row is in one, and neither lengths nor firsts fall inside one. `made` is what `Backend.prepare` has added.
    What lies on the host is read by `.numpy()`, which a recording does not take for a wait.
    """

    tables: torch.Tensor
    slots: torch.Tensor
    lengths: torch.Tensor
    runs: torch.Tensor
    firsts: torch.Tensor | None = None
    made: list[torch.Tensor] = []


class Backend(Protocol):
    """One way to attend. `page_tokens` is the page size it works best with."""

    page_tokens: int

    def prepare(self, part: Part, ends: np.ndarray | None, group: int) -> Part:
        """The part with what this backend makes of it once for all layers; here that is nothing.

        `ends` are the lengths on the host, None where they change after this, on the device only. `group`: query heads
        that share a key head, at most. Firsts may be put in afterwards; where `ends` is None, slots and lengths too.
        """
        return part

    def refill(self, made: list[torch.Tensor], part: Part, group: int) -> bool:
        """Write into `made`, which `prepare` has added to a part of one long run whose ends were not known, what it
        would add to `part`, of no more rows: a recording reads it there. Of `part` only the runs count. False where it
        has no room."""
        return True

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float, cap: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """query `(rows, heads, dim)`, keys `(pages, page_tokens, kv_heads, dim)` and values `(pages, page_tokens,
        kv_heads, wide)`, of a cache in eight bits with a scale (narrow.py); `part` is prepared. `cap`: scores become
        cap * tanh(score / cap); 0: they stay what they are.

        Returns out `(rows, heads, wide)` and the log-sum-exp `(rows, heads)` float32, -inf where a row's part is empty.
        """
        ...


_BACKENDS: WeakValueDictionary[int, Backend] = WeakValueDictionary()


def number(backend: Backend) -> int:
    """What stands for a backend in the operator's arguments, as long as the backend lives."""
    _BACKENDS[id(backend)] = backend
    return id(backend)


class Chunk(NamedTuple):
    """What a row sees in some layers: back to the first row of its chunk of so many rows of the stream."""

    rows: int


# How far back rows see in a layer: so many rows, themselves included, or their chunk; None: all.
Reach = int | Chunk | None


class Step(NamedTuple):
    """What the attention of one forward pass needs: where new rows are written and where each row looks.

    backend: its number. keys and values: one tensor a layer. target `(rows,)` int64: the pool row that each new row is
    written to. parts: prepared, by how far back the layers that use them see. The first is the one that new rows are
    written to. For each other one `turns` says by layer how far queries turn to meet its keys, whose rows count as
    standing elsewhere than where they were computed. `shared`: layers that write nothing and read what an earlier one
    wrote. `chunks`: of the layers that see chunks. `states`: a `StatesStep`, where layers keep states of all rows.
    `across`: of modules that read media by cross-attention, what rows see of it: in the pages of a layer, this part.
    """

    backend: int
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    target: torch.Tensor
    parts: dict[Reach, list[Part]]
    turns: list[list[Turn]] = []
    shared: frozenset[int] = frozenset()
    chunks: dict[int, Chunk] = {}
    states: Any = None
    across: dict[torch.nn.Module, list[tuple[int, Part]]] = {}

    def seen(self, window: Reach) -> list[Part]:
        """Where each row looks in a layer of this window. ModelError for a window that the step was not made for."""
        if window not in self.parts:
            raise ModelError(f"expected a window of {', '.join(map(str, self.parts))} rows, got {window}")
        return self.parts[window]


# In place of a step, for a pass without a cache in which each row sees all keys that are given.
ALONE = Step(0, [], [], torch.empty(0), {})


class ReferenceBackend(Backend):
    """Slow and obvious: gathers each sequence's history and takes a softmax in float32. Off the CPU it waits for the
    device at each run, to learn how long the history is."""

    page_tokens = 16

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float, cap: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, heads, _ = query.shape
        size, groups = keys.shape[1], heads // keys.shape[2]
        out = query.new_zeros(rows, heads, numbers(values))
        lse = query.new_full((rows, heads), float("-inf"), dtype=torch.float32)
        for start, stop in part.runs.numpy().tolist():
            longest = int(part.lengths[start:stop].max())
            if longest == 0:
                continue
            pages = part.tables[int(part.slots[start]), : -(-longest // size)].long()
            key, value = (
                widened(pool[pages].flatten(0, 1)[:longest], torch.float32).repeat_interleave(groups, dim=1)
                for pool in (keys, values)
            )
            scores = torch.einsum("rhd,khd->rhk", query[start:stop].float(), key.float()) * scale
            if cap:
                scores = (scores / cap).tanh() * cap
            places = torch.arange(longest, device=query.device)
            visible = places < part.lengths[start:stop, None]
            if part.firsts is not None:
                visible &= places >= part.firsts[start:stop, None]
            scores = scores.masked_fill(~visible[:, None], float("-inf"))
            lse[start:stop] = scores.logsumexp(-1)
            weights = (scores - lse[start:stop, :, None]).exp().nan_to_num(0.0)
            out[start:stop] = torch.einsum("rhk,khd->rhd", weights, value.float()).to(out.dtype)
        return out, lse


def merge(outs: Sequence[torch.Tensor], lses: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """One softmax over all parts from each part's own: outs `(rows, heads, dim)`, lses `(rows, heads)`."""
    if len(outs) == 1:
        return outs[0], lses[0]
    stacked = torch.stack(list(lses))
    total = stacked.logsumexp(0)
    weights = (stacked - total).exp().nan_to_num(0.0)
    out = sum(out.float() * weight[..., None] for out, weight in zip(outs, weights, strict=True))
    assert isinstance(out, torch.Tensor)
    return out.to(outs[0].dtype), total


def write_and_attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    target: torch.Tensor,
    tables: torch.Tensor,
    slots: torch.Tensor,
    lengths: torch.Tensor,
    runs: torch.Tensor,
    firsts: torch.Tensor | None,
    made: list[torch.Tensor],
    scale: float,
    backend: int,
    cap: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write new rows into one layer's pages, then attend to one part of the histories.

    query `(rows, heads, dim)` contiguous; key `(new, kv_heads, dim)` and value `(new, kv_heads, wide)` go to the pool
    rows `target` `(new,)` of keys and values `(pages, page_tokens, kv_heads, ...)`, in their type (narrow.py);
    `tables` to `made` are those of `Part`; `backend` is a number of a living backend. Returns what `Backend.attend`
    does.
    """
    write(keys, target, key)
    write(values, target, value)
    part = Part(tables, slots, lengths, runs, firsts, made)
    return _BACKENDS[backend].attend(query, keys, values, part, scale, cap)


# `torch.library.custom_op` makes the same operator; a call of that costs half as much again.
OPERATOR = "penstock::attend"
torch.library.define(OPERATOR, torch.library.infer_schema(write_and_attend, mutates_args=("keys", "values")))
torch.library.impl(OPERATOR, "default", write_and_attend)
operator: Any = torch.ops.penstock.attend.default


@torch.library.register_fake(OPERATOR)
def _(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return query.new_empty(*query.shape[:2], numbers(values)), query.new_empty(query.shape[:2], dtype=torch.float32)


def attend(
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    step: Step,
    scale: float,
    window: Reach = None,
    cap: float = 0.0,
) -> torch.Tensor:
    """The attention of one layer over its new rows and all before: query `(rows, heads, dim)`, key
    `(rows, kv_heads, dim)` and value `(rows, kv_heads, wide)`, or none of both where the cache has them already.
    Returns `(rows, heads, wide)`.

    A window counts rows of the cache, as the library's masks do; None: a row sees everything. `cap`: see `Backend`.
    """
    query, keys, values = query.contiguous(), step.keys[layer], step.values[layer]
    target = step.target if len(key) else step.target[:0]
    first, *others = step.seen(window)
    attended = [operator(query, key, value, keys, values, target, *first, scale, step.backend, cap)]
    for part, turns in zip(others, step.turns, strict=True):
        written = key[:0], value[:0], keys, values, step.target[:0]
        attended.append(operator(turns[layer](query), *written, *part, scale, step.backend, cap))
    return merge(*zip(*attended, strict=True))[0]


def attend_across(query: torch.Tensor, step: Step, seen: list[tuple[int, Part]], scale: float) -> torch.Tensor:
    """Cross-attention of one layer: query `(rows, heads, dim)`, `seen` what each row sees of its media, with the layer
    in whose pages that is. Returns `(rows, heads, wide)`; 0 for rows that see none."""
    query, attended = query.contiguous(), []
    for layer, part in seen:
        keys, values = step.keys[layer], step.values[layer]
        none = query.new_empty(0, keys.shape[2], numbers(keys)), query.new_empty(0, keys.shape[2], numbers(values))
        attended.append(operator(query, *none, keys, values, step.target[:0], *part, scale, step.backend, 0.0))
    return merge(*zip(*attended, strict=True))[0]


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
    """What every decoder layer calls: query `(1, heads, rows, dim)`; returns `(1, rows, heads, wide)`.

    The name is not registered for masks, so `attention_mask` is None: order is in the parts' lengths. ModelError for a
    layer that hands on less than it was given, or makes a mask of its own.
    """
    if step is None:
        raise ModelError("expected layers that hand on to attention what is beside the rows, got one that does not")
    if attention_mask is not None:
        raise ModelError("expected layers whose order is that of their rows, got one with a mask of its own")
    if step is ALONE:
        seen = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling, enable_gqa=True)
        return seen.transpose(1, 2), None
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if step.across and module in step.across:
        return attend_across(query[0].transpose(0, 1), step, step.across[module], scale)[None], None
    rows, new, values = (heads[0].transpose(0, 1) for heads in (query, key, value))
    if layer in step.shared:
        new, values = new[:0], values[:0]
    window = step.chunks.get(layer, sliding_window)
    return attend(layer, rows, new, values, step, scale, window, softcap or 0.0)[None], None


transformers.AttentionInterface.register(NAME, paged_attention)
