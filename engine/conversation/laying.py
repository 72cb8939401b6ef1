"""Rows are laid into a stream if they fit, or nothing changes. Numbers only: it hands out no pages."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ...errors import ContextOverflowError
from ..span import Rows
from .layout import Layout
from .state import StreamState


class Limits(msgspec.Struct, frozen=True):
    """How many rows and positions one stream may have."""

    rows: int
    positions: int


def lay_within(
    stream: StreamState,
    limits: Limits,
    lay: Callable[[Layout], list[Rows]],
    reserve: int,
    make_room: Callable[[int, int], bool] | None = None,
) -> list[Rows]:
    """Rows from `lay(layout)`, laid if they fit the limits with `reserve` rows to spare; else nothing has changed
    but that older rows may have left, where `make_room(rows, last position)` let them go. What the layout takes
    back goes out of the cache.

    Raises ContextOverflowError with the numbers, Unspelled where a long text has no ids yet, and what `make_room`
    raises.
    """
    trial, rows = _trial(stream, lay)
    if make_room is not None and make_room(*_extent(rows, reserve - trial.taken_back)):
        trial, rows = _trial(stream, lay)  # what has left closes a block of media
    _check_room(stream, limits, *_extent(rows, reserve), reserve, trial.taken_back)
    if trial.taken_back:
        stream.cut(stream.rows - trial.taken_back)
    stream.layout = trial
    stream.lay(rows)
    return rows


def _trial(stream: StreamState, lay: Callable[[Layout], list[Rows]]) -> tuple[Layout, list[Rows]]:
    """What laying does to the layout, and its rows."""
    trial = stream.layout.copy()
    trial.ready = stream.ready
    rows = lay(trial)
    trial.ready = None
    return trial, rows


def _check_room(stream: StreamState, limits: Limits, count: int, last: int, reserve: int, taken_back: int) -> None:
    """ContextOverflowError where `count` rows, `reserve` of them kept free, do not fit, the last at `last`."""
    kept, most = stream.size - taken_back, limits.rows
    if kept + count > most:
        raise ContextOverflowError(
            f"the cache holds {most} rows for a stream: expected at most {most - kept - reserve} more, "
            f"got {count - reserve} ({kept} so far, {reserve} kept free)"
        )
    lowest = 0 if stream.fronts is None else stream.fronts.lowest
    if last - lowest >= limits.positions:
        raise ContextOverflowError(
            f"the model has {limits.positions} positions: expected at most "
            f"{limits.positions + lowest - reserve - 1}, got {last - reserve}"
        )


def _extent(rows: list[Rows], reserve: int) -> tuple[int, int]:
    """How many rows these are, and the position of the last, both with as many more as are kept free."""
    last = max((int(run.positions.max()) for run in rows if len(run)), default=0)
    return sum(len(run) for run in rows) + reserve, last + reserve
