"""How many rows fit into a time, learnt from what rows have taken. Numbers only; the clock is the caller's."""

from __future__ import annotations

# The share of a new measurement in the running mean.
_SHARE = 0.2


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
        if not self._row_ms:
            return self._most
        fits = (self._target_ms - self._base_ms) / self._row_ms
        return max(self._least, min(self._most, int(max(0.0, fits))))
