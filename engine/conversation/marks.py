"""Places of a stream to which a copy of it can go back: after each of its newest inputs, with the layout there."""

from __future__ import annotations

from collections import deque

import msgspec

from ...errors import InputError
from ..command import Back
from .layout import Layout

# A place takes about a kilobyte.
_MOST = 1024


class Mark(msgspec.Struct, frozen=True, eq=False):
    """After input `seq` the stream had `rows` rows, laid out so. Its media went up to `media_us`; None: no time is
    known."""

    seq: int
    rows: int
    media_us: int | None
    layout: Layout


class Marks:
    """Those of one stream, in the order of its rows."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=_MOST)
        self._media_us: int | None = None  # the latest time of media that has ever been laid

    def copy(self) -> Marks:
        twin = Marks()
        twin._marks.extend(self._marks)
        twin._media_us = self._media_us
        return twin

    def shown(self, stop_us: int | None) -> None:
        """Media up to this time is laid."""
        if stop_us is not None:
            self._media_us = stop_us if self._media_us is None else max(stop_us, self._media_us)

    def add(self, seq: int, rows: int, layout: Layout) -> None:
        """The stream is at this place."""
        self._marks.append(Mark(seq, rows, self._media_us, layout.copy()))

    def cut(self, row: int) -> None:
        """What was laid from `row` on is gone."""
        while self._marks and self._marks[-1].rows > row:
            self._marks.pop()

    def slide(self, row: int) -> None:
        """What was laid before `row` has left the window."""
        while self._marks and self._marks[0].rows <= row:
            self._marks.popleft()

    def find(self, back: Back) -> Mark:
        """The place that is meant. Raises InputError where it is not held any more, or was never one."""
        if back.seq is not None:
            seqs = [mark.seq for mark in self._marks]
            if back.seq not in seqs:
                known = f"{seqs[0]} to {seqs[-1]}" if seqs else "none"
                raise InputError(
                    f"back_to: expected an input that was taken and answered and whose rows are held ({known}, the "
                    f"newest {_MOST} at most), got {back.seq}"
                )
            return self._marks[len(seqs) - 1 - seqs[::-1].index(back.seq)]
        assert back.media_us is not None
        times = [mark.media_us for mark in self._marks if mark.media_us is not None]
        for mark in reversed(self._marks):
            if mark.media_us is not None and mark.media_us <= back.media_us:
                return mark
        known = f"at least {min(times)} microseconds" if times else "a stream that holds media with times"
        raise InputError(f"back_to_us: expected {known}, got {back.media_us}")
