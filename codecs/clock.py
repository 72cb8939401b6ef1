"""Times of packets on one line, through parts and clocks that start again. Comes in: times as a container states them;
goes out: times that go on. Knows no packets and no codecs.
"""

from __future__ import annotations

# A clock that jumps ahead by more than this was started again; by less, media is missing.
LONGEST_GAP_US = 3600 * 1_000_000
# The tracks of one file are this far apart at most where both have just been started again.
SKEW_US = 1_000_000
# Times of one track go back by this much through rounding alone.
JITTER_US = 100_000
_WRAP = 1 << 33  # MPEG-TS counts in 33 bits (ISO/IEC 13818-1, 2.4.3.7)


class ContainerClock:
    """Gives, for each packet, what has to be added to the times that its container states.

    A part is one file, or one of several in a row. Its clock goes on where its first time lies after the last one of
    the same track and at most an hour ahead. Otherwise it was started again: its times then follow the end of what was
    there. Inside one part the same holds where `restarts` is true, which is so for MPEG-TS.
    """

    def __init__(self) -> None:
        self._shifts = [0]
        self._of: dict[str, int] = {}  # the place in `_shifts` of each track
        self._last_us: dict[str, int] = {}  # stated time plus shift of the newest packet of each track
        self._end_us: int | None = None
        self._begun, self._always, self._from_zero = True, False, False
        self._first_us: int | None = None

    def begin(self, first_us: int | None, always: bool, from_zero: bool) -> None:
        """A part begins. `always`: its clock is its own. `from_zero`: its times count from its start, `first_us`."""
        self._begun = False
        self._first_us = first_us
        self._always = always
        self._from_zero = from_zero

    def shift(self, track: str, time_us: int, shown_us: int, restarts: bool) -> int:
        """What is added to the times of a packet of `track`, decoded and shown at the stated times."""
        if not self._begun:
            self._begun = True
            self._start(track, time_us, shown_us)
        elif restarts and not self._fits(track, time_us, self._at(track), JITTER_US):
            later = range(self._of.get(track, 0) + 1, len(self._shifts))
            found = (place for place in later if self._fits(track, time_us, self._shifts[place], SKEW_US))
            place = next(found, None)
            if place is None:
                self._shifts.append((self._end_us or 0) - time_us)
                place = len(self._shifts) - 1
            self._of[track] = place
        self._last_us[track] = time_us + self._at(track)
        return self._at(track)

    def leaps(self, time_us: int, latest_us: int) -> bool:
        """Whether a time of the running part is beyond `latest_us`, and an hour ahead of all there was."""
        if not self._begun or self._end_us is None:
            return False
        at_us = time_us + self._shifts[-1]
        return at_us > latest_us and at_us > self._end_us + LONGEST_GAP_US

    def reach(self, end_us: int) -> None:
        """Media ends at `end_us`, a stated time plus its shift."""
        self._end_us = end_us if self._end_us is None else max(self._end_us, end_us)

    def _at(self, track: str) -> int:
        return self._shifts[self._of.setdefault(track, len(self._shifts) - 1)]

    def _start(self, track: str, time_us: int, shown_us: int) -> None:
        near = self._first_us is not None and abs(shown_us - self._first_us) < 10 * SKEW_US
        first_us = min(shown_us, self._first_us) if near and self._first_us is not None else shown_us
        if self._end_us is None:
            self._shifts = [-first_us if self._from_zero else 0]
        elif self._always or not self._fits(track, time_us, self._shifts[-1], -1):
            self._shifts = [self._end_us - first_us]
        else:
            self._shifts = [self._shifts[-1]]
        self._of = {}

    def _fits(self, track: str, time_us: int, shift: int, back_us: int) -> bool:
        """Whether a packet at `time_us` continues what was there, where `shift` is added."""
        at_us = time_us + shift
        if track in self._last_us:
            earliest_us = self._last_us[track] - back_us
        else:
            earliest_us = at_us if self._end_us is None else self._end_us - SKEW_US
        return earliest_us <= at_us <= max(self._end_us or 0, earliest_us) + LONGEST_GAP_US


class Unwrapped:
    """Times of 33 bits as times without end, for the tracks of one program."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._newest: int | None = None

    def ticks(self, track: str, ticks: int) -> int:
        """The time that is `ticks` modulo 2**33 and goes on from the last one of the track.

        Where it does not go on, the clock was started again: the time then stands beside the newest of all tracks, as
        far as they are apart, or else is `ticks` itself.
        """
        for near, back_us in ((self._last.get(track), JITTER_US), (self._newest, SKEW_US)):
            if near is not None and -back_us * 9 // 100 <= beside(ticks, near) - near <= LONGEST_GAP_US * 9 // 100:
                ticks = beside(ticks, near)
                break
        self._last[track] = self._newest = ticks
        return ticks


def beside(ticks: int, near: int) -> int:
    """The time that is `ticks` modulo 2**33 and nearest to `near`."""
    return near + (ticks - near + _WRAP // 2) % _WRAP - _WRAP // 2
