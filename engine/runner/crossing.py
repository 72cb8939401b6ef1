"""Decoders whose words read media by cross-attention (Whisper, Llama 3.2 Vision): some layers, or parts of layers, see
media and nothing else, all others words and nothing else.

Rows of media come first in a stream's pages. They do not go through the decoder: each cross-attention makes keys and
values of them once. Where one layer in `k` has one, a row of the cache has room for `k` rows of media: row `r` of these
is in row `r // k` of the cache, in the pages of the layer `r % k` of the `k` that belong to the cross-attention. So
media takes no more memory than its keys and values. Words see it by `Look`.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace

from ...errors import ModelError
from ..plan import Feed
from .attention import Backend, Part
from .batch import StepRows
from .cache import Cache
from .narrow import write
from .upload import upload

_NAMES = ("encoder_attn", "cross_attn")  # what the library calls such a part of a layer
_STATES = ("encoder_hidden_states", "cross_attention_states")  # and what its decoders call the media
_OWN = "full_text_row_masked_out_mask"


class Crossing:
    """The cross-attentions of a decoder. ModelError where it has none that are known."""

    def __init__(self, text: Any) -> None:
        self._parts = _parts(text)
        self._packed = packed(text)
        takes = inspect.signature(text.forward).parameters
        self._states = next((name for name in _STATES if name in takes), "")
        self._tells = _OWN in takes
        if not self._parts or not self._states:
            raise ModelError("expected layers with cross-attention, got none that is known")

    @property
    def reads(self) -> set[Any]:
        """The layers that media runs through."""
        return {layer for part in self._parts for layer in (part.k_proj, part.v_proj)}

    def width(self, hidden: int) -> int:
        """How many numbers of media, which has `hidden` a row, one row of the cache stands for."""
        return self._packed * hidden

    def keep(self, media: torch.Tensor, cache: Cache, target: torch.Tensor) -> None:
        """Write the keys and values of media `(n, width)` to the pool rows `target` `(n,)`."""
        heads = cache.keys[0].shape[2]
        for number, part in enumerate(self._parts):
            for layer, rows in zip(self._layers(number), media.chunk(self._packed, -1), strict=True):
                keys, values = (made.unflatten(-1, (heads, -1)) for made in (part.k_proj(rows), part.v_proj(rows)))
                write(cache.keys[layer], target, part.k_norm(keys) if hasattr(part, "k_norm") else keys)
                write(cache.values[layer], target, values)

    def across(self, looked: Looked, rows: StepRows, tables: torch.Tensor, backend: Backend, group: int) -> Any:
        """What each cross-attention sees (`Step.across`)."""
        parts = [looked.part(place, self._packed, rows, tables, backend, group) for place in range(self._packed)]
        return {part: list(zip(self._layers(number), parts, strict=True)) for number, part in enumerate(self._parts)}

    def _layers(self, number: int) -> range:
        """In the pages of which layers the media of a cross-attention is."""
        return range(number * self._packed, (number + 1) * self._packed)

    def beside(self, embeds: torch.Tensor, own: torch.Tensor, worn: bool) -> dict[str, Any]:
        """What the decoder takes beside words `(n, hidden)`: media, so that it calls these layers, of one row, or where
        words wear adapters as many; and whether each takes more of the media than its attention, `own` `(n,)`."""
        rows = len(embeds) if worn else 1
        more: dict[str, Any] = {self._states: embeds.new_zeros(1, rows, embeds.shape[1])}
        if self._tells:
            more[_OWN] = own.to(embeds.dtype)[None, None, :, None]
        return more


def packed(text: Any) -> int:
    """How many rows of media one row of the cache of a decoder has room for."""
    return len(text.layers) // max(1, len(_parts(text)))


def _parts(text: Any) -> list[Any]:
    found = [next((getattr(layer, name) for name in _NAMES if hasattr(layer, name)), None) for layer in text.layers]
    return [part for part in found if part is not None]


def apart(feeds: list[Feed]) -> tuple[list[Feed], list[Feed], np.ndarray]:
    """The feeds of a step as those of their media and those of their words, and which rows of all are words,
    `(rows,)` bool."""
    media, words, which = [], [], []
    for feed in feeds:
        first = feed.looks[0].first if feed.looks else 0
        place, sides = feed.first, ([], [])
        for run in feed.rows:
            sides[place >= first].append(run)
            place += len(run)
        shown, said = (sum(map(len, side)) for side in sides)
        which += [False] * shown + [True] * said
        if shown:
            media.append(replace(feed, rows=sides[0], draw=None, guesses=None))
        if said:
            words.append(replace(feed, rows=sides[1], first=feed.first + shown, begin=first))
    return media, words, np.array(which)


class Looked:
    """What the rows of a step of words see of their media: `begins` and `stops` `(rows,)` int32, `own` `(rows,)` bool,
    and `runs` `(n, 2)`, of rows of one stream that see the same."""

    def __init__(self, feeds: list[Feed], rows: StepRows) -> None:
        self.begins, self.stops = np.zeros((2, len(rows)), np.int32)
        self.own = np.zeros(len(rows), bool)
        runs: list[tuple[int, int]] = []
        for feed, (start, stop) in zip(feeds, rows.runs.tolist(), strict=True):
            edges = [look.first - feed.first for look in feed.looks]
            for place in range(max(0, bisect_right(edges, 0) - 1), len(edges)):
                first, last = max(0, edges[place]), min([*edges, stop - start][place + 1], stop - start)
                if first < last:
                    look, own = feed.looks[place], slice(start + first, start + last)
                    self.begins[own], self.stops[own], self.own[own] = look.begin, look.stop, look.own
                    runs.append((start + first, start + last))
            if not edges:
                runs.append((start, stop))
        self.runs = np.array(runs, np.int64)

    def part(self, place: int, packed: int, rows: StepRows, tables: torch.Tensor, backend: Backend, group: int) -> Part:
        """What they see of the rows of media number `place`, `place + packed`, ..., as attention takes it."""
        begins, stops = ((edge - place + packed - 1) // packed for edge in (self.begins, self.stops))
        slots, firsts, lengths = (upload(torch.from_numpy(one), tables.device) for one in (rows.slots, begins, stops))
        part = backend.prepare(Part(tables, slots, lengths, torch.from_numpy(self.runs)), stops, group)
        # Where rows see nothing, firsts are given too: not every kernel takes an empty history for one.
        return part._replace(firsts=firsts) if begins.any() or not stops.all() else part
