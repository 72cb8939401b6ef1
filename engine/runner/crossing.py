"""Decoders whose words read media by cross-attention (Whisper, Llama 3.2 Vision): some layers, or parts of layers, see
media and nothing else, all others words and nothing else.

Rows of media come first in a stream's pages. They do not go through the decoder: each cross-attention makes keys and
values of them once, which are written to the pages of its layer. Words see those by `Look`. What comes in: the feeds of
a step. What goes out: hidden states of its words.
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
from .attention import Part
from .batch import StepRows
from .cache import Cache
from .narrow import write
from .upload import upload

_NAMES = ("encoder_attn", "cross_attn")  # what the library calls such a part of a layer
_STATES = ("encoder_hidden_states", "cross_attention_states")  # and what its decoders call the media
_OWN = "full_text_row_masked_out_mask"


class Crossing:
    """The cross-attentions of a decoder, by layer. ModelError where it has none that are known."""

    def __init__(self, text: Any) -> None:
        found = [next((getattr(layer, name) for name in _NAMES if hasattr(layer, name)), None) for layer in text.layers]
        self._parts = {layer: part for layer, part in enumerate(found) if part is not None}
        takes = inspect.signature(text.forward).parameters
        self._states = next((name for name in _STATES if name in takes), "")
        self._tells = _OWN in takes
        if not self._parts or not self._states:
            raise ModelError("expected layers with cross-attention, got none that is known")
        self.modules = frozenset(self._parts.values())

    def keep(self, media: torch.Tensor, cache: Cache, target: torch.Tensor) -> None:
        """Write the keys and values of rows of media `(n, hidden)` to the pool rows `target` `(n,)`."""
        for layer, part in self._parts.items():
            heads = cache.keys[layer].shape[2]
            keys, values = (made.unflatten(-1, (heads, -1)) for made in (part.k_proj(media), part.v_proj(media)))
            if hasattr(part, "k_norm"):
                keys = part.k_norm(keys)
            write(cache.keys[layer], target, keys)
            write(cache.values[layer], target, values)

    def beside(self, embeds: torch.Tensor, own: torch.Tensor) -> dict[str, Any]:
        """What the decoder takes beside words `(n, hidden)`: one row of media, so that it calls these layers, and for
        each word whether it takes more of the media than its attention, `own` `(n,)`."""
        more: dict[str, Any] = {self._states: embeds.new_zeros(1, 1, embeds.shape[1])}
        if self._tells:
            more[_OWN] = own.to(embeds.dtype)[None, None, :, None]
        return more


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

    def part(self, tables: torch.Tensor, rows: StepRows) -> Part:
        """As attention takes it, not yet prepared, from the first row of the media on."""
        slots, lengths = (upload(torch.from_numpy(numbers), tables.device) for numbers in (rows.slots, self.stops))
        return Part(tables, slots, lengths, torch.from_numpy(self.runs))
