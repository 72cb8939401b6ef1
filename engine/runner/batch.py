"""The rows of a step, those of all streams back to back: where each is written and how far it sees. In: feeds. Out:
arrays on the host.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..plan import Feed


class StepRows(NamedTuple):
    """One number a row: ids int64, positions `(3, rows)` int64, slots int32, places in the stream's cache int64, and
    ends int32, how far the row sees: up to itself, in an atomic run up to the run's end. `runs` `(feeds, 2)` int64:
    start and stop of each feed's rows."""

    ids: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    places: np.ndarray
    ends: np.ndarray
    runs: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def batched(feeds: list[Feed]) -> StepRows:
    """The rows of these feeds."""
    counts = [sum(len(run) for run in feed.rows) for feed in feeds]
    rows = [run for feed in feeds for run in feed.rows]
    places = [np.arange(feed.first, feed.first + count) for feed, count in zip(feeds, counts, strict=True)]
    stops = np.cumsum(counts)
    return StepRows(
        np.concatenate([run.ids for run in rows]),
        np.concatenate([run.positions for run in rows], axis=1),
        np.repeat(np.array([feed.slot for feed in feeds], dtype=np.int32), counts),
        np.concatenate(places),
        np.concatenate([_ends(feed, count) for feed, count in zip(feeds, counts, strict=True)]),
        np.stack([stops - counts, stops], 1),
    )


def _ends(feed: Feed, count: int) -> np.ndarray:
    ends = np.arange(feed.first + 1, feed.first + 1 + count, dtype=np.int32)
    stop = 0
    for run in feed.rows:
        start, stop = stop, stop + len(run)
        if run.atomic:
            ends[start:stop] = feed.first + stop
    return ends
