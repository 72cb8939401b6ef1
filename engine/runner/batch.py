"""The rows of a step, those of all streams back to back: where each is written and how far it sees. In: feeds. Out:
arrays on the host.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..plan import Feed
from .attention import Chunk


class FrontRows(NamedTuple):
    """Of one front, a number a row: page tables, places `[begins, stops)` that the row sees, both 0 where its stream
    has no such front, and how much higher these stand than they were computed, int64. `after`: rows that the stream
    holds between this front and its window."""

    slots: np.ndarray
    begins: np.ndarray
    stops: np.ndarray
    lifts: np.ndarray
    after: np.ndarray

    def within(self, window: int, places: np.ndarray) -> np.ndarray:
        """From where on each row sees the front, in a layer in which it sees `window` rows back, itself included.
        `places`: rows that its stream's window holds before it."""
        return np.maximum(self.begins, self.stops + self.after + places + 1 - window).astype(np.int32)


class StepRows(NamedTuple):
    """One number a row: ids int64, positions `(3, rows)` int64, slots int32, places in the stream's cache int64, begins
    int32, from where on the row sees, and ends int32, how far: up to itself, in an atomic run up to the run's end.
    `runs` `(feeds, 2)` int64: start and stop of each feed's rows."""

    ids: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    places: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    runs: np.ndarray
    fronts: list[FrontRows]

    def __len__(self) -> int:
        return len(self.ids)

    def firsts(self, window: int | Chunk) -> np.ndarray:
        """From where on each row sees in a layer with this window."""
        back = self.places // window.rows * window.rows if isinstance(window, Chunk) else self.places + 1 - window
        return np.maximum(back, self.begins).astype(np.int32)

    @property
    def ahead(self) -> bool:
        """Some row of it sees rows behind itself."""
        return bool((self.ends > self.places + 1).any())

    @property
    def slid(self) -> bool:
        """Some stream of it no longer holds all of its rows."""
        return bool(self.fronts) or bool(self.begins.any())


def batched(feeds: list[Feed], marks: frozenset[int] = frozenset()) -> StepRows:
    """The rows of these feeds. `marks`: of an atomic run only rows with these ids see one another, those side by side;
    none: all of it do."""
    counts = [sum(len(run) for run in feed.rows) for feed in feeds]
    rows = [run for feed in feeds for run in feed.rows]
    places = [np.arange(feed.first, feed.first + count) for feed, count in zip(feeds, counts, strict=True)]
    stops = np.cumsum(counts)
    return StepRows(
        np.concatenate([run.ids for run in rows]),
        np.concatenate([run.positions for run in rows], axis=1),
        np.repeat(np.array([feed.slot for feed in feeds], dtype=np.int32), counts),
        np.concatenate(places),
        np.repeat(np.array([feed.begin for feed in feeds], dtype=np.int32), counts),
        np.concatenate([_ends(feed, count, marks) for feed, count in zip(feeds, counts, strict=True)]),
        np.stack([stops - counts, stops], 1),
        [_front(feeds, counts, place) for place in range(max(len(feed.fronts) for feed in feeds))],
    )


def _front(feeds: list[Feed], counts: list[int], place: int) -> FrontRows:
    """The front number `place` of each feed that has one."""
    table = np.zeros((len(feeds), 5), dtype=np.int64)
    for line, feed in enumerate(feeds):
        if place < len(feed.fronts):
            front = feed.fronts[place]
            after = sum(other.stop - other.begin for other in feed.fronts[place + 1 :])
            table[line] = front.slot, front.begin, front.stop, front.lift, after
    slots, begins, stops, lifts, after = np.repeat(table, counts, axis=0).T
    return FrontRows(slots.astype(np.int32), begins.astype(np.int32), stops.astype(np.int32), lifts, after)


def _ends(feed: Feed, count: int, marks: frozenset[int]) -> np.ndarray:
    ends = np.arange(feed.first + 1, feed.first + 1 + count, dtype=np.int32)
    stop = 0
    for run in feed.rows:
        start, stop = stop, stop + len(run)
        if run.atomic and marks:
            ahead = np.isin(run.ids, [*marks])
            edges = np.flatnonzero(np.diff(ahead, prepend=False, append=False))
            for first, last in edges.reshape(-1, 2).tolist():
                ends[start + first : start + last] = feed.first + start + last
        elif run.atomic:
            ends[start:stop] = feed.first + stop
    return ends
