"""How many rows fit into a time, learnt from what rows have taken. Numbers only; the clock is the caller's."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

# The share of a new measurement in the running mean.
_SHARE = 0.2
# Between two tokens of a reply, where media comes in live: what a step that appends may take, and what that and a slice
# of a tower may take together. In times of a step that only decodes.
_APPENDS, _BETWEEN = 1.75, 2.5
# How long a tower may go on before a step, in the same measure, where nothing is live: replies wait, throughput gains.
_SLICE = 4.0
# Measurements that a median is taken over, and the least share that is believed of a guess.
_NEWEST, _LEAST = 8, 0.02


class Pace:
    """Rows for `target_ms`, between `least` and `most`; `most` until something has been measured."""

    def __init__(self, target_ms: float, least: int, most: int) -> None:
        self._target_ms = target_ms
        self._least = min(least, most)
        self._most = most
        self._base_ms = 0.0  # of work that is done whatever the rows
        self._row_ms: float | None = None

    def idle(self, ms: float) -> None:
        """Work without such rows took `ms`."""
        self._base_ms += _SHARE * (ms - self._base_ms) if self._base_ms else ms

    def took(self, rows: int, ms: float) -> None:
        """Work with `rows` rows took `ms`."""
        row_ms = max(0.0, ms - self._base_ms) / rows
        self._row_ms = row_ms if self._row_ms is None else self._row_ms + _SHARE * (row_ms - self._row_ms)

    @property
    def rows(self) -> int:
        """How many rows fit now."""
        return self._fitting(self._target_ms)

    def takes_ms(self, rows: int) -> float:
        """How long work with so many rows takes; 0 until something has been measured."""
        return self._base_ms + rows * (self._row_ms or 0.0)

    def _fitting(self, ms: float) -> int:
        if not self._row_ms:
            return self._most
        return max(self._least, min(self._most, int(max(0.0, (ms - self._base_ms) / self._row_ms))))


class StepPace(Pace):
    """The rows that a step appends while a reply decodes, and how long such a step waits for a tower.

    `target_ms` 0: a step may take a multiple of what one takes that only decodes. `whole`: the rows of a step where
    nothing is live.
    """

    def __init__(self, target_ms: float, least: int, most: int, whole: int) -> None:
        super().__init__(target_ms, least, most)
        self._whole = whole

    def appends(self, waiting: int, within_ms: float | None) -> int:
        """How many rows the next step appends.

        Of `waiting` rows of live streams all have to be in the cache after `within_ms`: never fewer than keep up with
        that. None: no stream is live, and steps are filled.
        """
        if within_ms is None:
            return self._whole
        if not self._base_ms:
            return self._most
        due = math.ceil(waiting * _BETWEEN * self._base_ms / within_ms)
        return max(self._fitting(self._target_ms or _APPENDS * self._base_ms), min(self._most, due))

    def patience_ms(self, rows: int, live: bool) -> float:
        """How long after the step before it a step that decodes and appends `rows` rows may wait for a tower."""
        takes_ms = self.takes_ms(rows)
        if not live:
            return max(_SLICE * self._base_ms, takes_ms)
        return max(_BETWEEN * self._base_ms - takes_ms, (_BETWEEN - _APPENDS) / 2 * self._base_ms)


class GuessPace:
    """What a guessed token costs, learnt from steps that append nothing: some have guesses, others have none."""

    def __init__(self) -> None:
        self._plain: dict[int, deque[float]] = {}  # milliseconds of steps without, by how many replies decode
        self._shares: deque[float] = deque(maxlen=_NEWEST)

    def took(self, replies: int, guesses: int, ms: float) -> None:
        """A step in which so many replies decode took so long."""
        plain = self._plain.setdefault(replies, deque(maxlen=_NEWEST))
        if not guesses:
            plain.append(ms)
        elif plain:
            self._shares.append(max(0.0, ms / median(plain) - 1) / guesses)

    @property
    def cost(self) -> float | None:
        """The share of a step that one guess adds to it; None until that was measured."""
        return max(_LEAST, round(median(self._shares), 2)) if self._shares else None
