"""The KV cache: keys and values of all rows, in pages, and what is done to pages between two steps. In: the page
numbers of plans. It knows slots and pages, not streams' lives, and computes nothing.
"""

from __future__ import annotations

from typing import Any

import torch

from ..plan import Plan, Recalled
from .narrow import narrowed, widened, width
from .out_of_memory import moved
from .shapes import LayerShape
from .upload import to_host, upload

# What a stream has in host memory: keys and values of its pages, by layer that has pages of its own.
Host = list[tuple[torch.Tensor, torch.Tensor]]


class Cache:
    """Pages of keys and of values for each layer, `(pages, page_tokens, heads, numbers)` by `shapes`, as narrow.py has
    them in eight bits. A layer that reads those of another has the same tensors.

    shared: layers that write nothing, since another has written it. tables: page tables of all slots, `(tables, pages)`
    int32; entries after a sequence's length are stale and never read. turning: how keys turn with their positions, for
    rows that are recalled to others.
    """

    def __init__(
        self,
        shapes: list[LayerShape],
        pages: int,
        page_tokens: int,
        tables: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device,
        turning: Any,
    ) -> None:
        self.page_tokens = page_tokens
        self.device = device
        self.turning = turning
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        for layer, shape in enumerate(shapes):
            for pools, size in ((self.keys, shape.key), (self.values, shape.value)):
                own = shape.owner == layer
                pool = (pages, page_tokens, shape.heads, width(size, dtype))
                pools.append(torch.zeros(pool, dtype=dtype, device=device) if own else pools[shape.owner])
        self._own = [layer for layer, shape in enumerate(shapes) if shape.owner == layer]
        self.shared = frozenset(range(len(shapes))) - {*self._own}
        self.tables = torch.zeros(tables, dtype=torch.int32, device=device)
        self._host: dict[int, Host] = {}

    def move(self, plan: Plan) -> list[int]:
        """What is done before the forward pass; returns the streams whose pages are lost, as memory ran out."""
        for stream, twin in plan.twins:
            self._host[twin] = self._host[stream]
        lost = [rows.stream for rows in plan.recalled if not moved(self._recall, rows)]
        lost += [stream for stream, pages in plan.saves if not moved(self._save, stream, pages)]
        self._copy(plan.copies)
        for edit in plan.edits:
            pages = upload(torch.tensor(edit.pages, dtype=torch.int32), self.device)
            self.tables[edit.slot, edit.index : edit.index + len(edit.pages)] = pages
        lost += [stream for stream, pages in plan.restores if not moved(self._restore, stream, pages)]
        for stream in plan.drops:
            self._host.pop(stream, None)
        return lost

    def rows(self, slots: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The pool row `(rows,)` int64 of each of these places in the sequences of these slots."""
        pages = self.tables[slots.long(), places // self.page_tokens].long()
        return pages * self.page_tokens + places % self.page_tokens

    def on_host(self, stream: int) -> Host:
        """What a stream has in host memory; empty where it has nothing there."""
        return self._host.get(stream, [])

    def bring(self, stream: int, layers: Host) -> None:
        """A stream that goes on here has these pages in host memory, before the first plan that names it."""
        self._host[stream] = layers

    def _copy(self, pages: list[tuple[int, int]]) -> None:
        for tensor in self._pools() if pages else ():
            for source, target in pages:
                tensor[target] = tensor[source]

    def _recall(self, rows: Recalled) -> None:
        """Sources are read before anything is written: they may be free by now, and taken again as targets."""
        sources, targets, steps = (
            upload(torch.tensor(numbers), self.device) for numbers in (rows.sources, rows.targets, rows.turns)
        )
        turns = self.turning(steps)
        kept = self.keys[0].dtype
        keys = [widened(self.keys[layer].flatten(0, 1)[sources], torch.float32) for layer in self._own]
        keys = [narrowed(turns[layer](rows), kept) for layer, rows in zip(self._own, keys, strict=True)]
        values = [self.values[layer].flatten(0, 1)[sources] for layer in self._own]
        self._copy(rows.copies)
        for pool, taken in zip(self._pools(), (*keys, *values), strict=True):
            pool.flatten(0, 1).index_copy_(0, targets, taken)

    def _save(self, stream: int, pages: list[int]) -> None:
        index = upload(torch.tensor(pages), self.device)
        self._host[stream] = [
            (to_host(self.keys[layer][index]), to_host(self.values[layer][index])) for layer in self._own
        ]

    def _restore(self, stream: int, pages: list[int]) -> None:
        index = upload(torch.tensor(pages), self.device)
        for (key, value), layer in zip(self._host.pop(stream), self._own, strict=True):
            self.keys[layer][index] = upload(key[: len(pages)], self.device)
            self.values[layer][index] = upload(value[: len(pages)], self.device)

    def _pools(self) -> list[torch.Tensor]:
        """All pages: of keys, then of values."""
        return [pools[layer] for pools in (self.keys, self.values) for layer in self._own]
