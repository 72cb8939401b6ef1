"""Frames of a video to temporal patches. Comes in: pictures with their media time; goes out: video segments.

Two steps. `Sampler` picks frames at the model's rate, on a grid of ticks that starts at the first frame. `VideoPatches`
resizes what was picked and groups it. Neither knows order of arrival beyond "newer than the newest", sound, or models.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import msgspec
import numpy as np

from ..codecs.frame import Pixels
from .event import Dropped
from .segment import SizeRule, VideoSegment
from .size import fit

Resize = Callable[[np.ndarray, int, int], np.ndarray]

# Between two frames that are further apart than this no frame is repeated; the grid of ticks starts again.
LONGEST_GAP_US = 10_000_000
# Containers round times, some of them to a millisecond: the end of a frame is known up to this.
ROUNDING_US = 2_000


class Pick(msgspec.Struct, frozen=True, eq=False):
    """Frame `frame` is the picture of the tick at `tick_us`. `grid` counts how often the ticks started again."""

    frame: Pixels
    tick_us: int
    grid: int


class Sampler:
    """The causal sampler: for each tick of the target rate the nearest frame, ties to the earlier.

    Tick n lies n / fps seconds after the first frame, in exact arithmetic. It is decided as soon as a frame at or
    after it has come, for no later frame can be nearer. So a source that is slower than the rate has its frames
    repeated, and a frame that is nearest to no tick is passed over. Frames more than 10 s apart are not joined by
    repeats: the later one is the first of a new grid. So is one that is older than the newest: its clock was set back.
    """

    def __init__(self, fps: float) -> None:
        """`fps` is the target rate in frames per second, taken as the decimal number it prints as."""
        self._interval = 1_000_000 / Fraction(str(fps))
        self._grid = -1
        self._start_us = 0
        self._tick = 0
        self._newest: Pixels | None = None
        self._before_us: int | None = None

    @property
    def newest_us(self) -> int | None:
        """Media time of the newest frame; None before the first."""
        return None if self._newest is None else self._newest.pts_us

    @property
    def wait_us(self) -> int:
        """How long after the newest frame the next one may be expected: one tick, or as long as the last one took."""
        last_us = 0 if self._newest is None or self._before_us is None else self._newest.pts_us - self._before_us
        return max(int(self._interval), last_us)

    @property
    def next_tick_us(self) -> int:
        """Time of the first tick that is not decided, rounded down. Meaningful once a frame has come."""
        return int(self._time())

    def takes(self, frame: Pixels) -> bool:
        """Whether the frame is newer than the newest."""
        return self._newest is None or frame.pts_us > self._newest.pts_us

    def goes_back(self, frame: Pixels) -> bool:
        """Whether the frame is older than the newest. One of the very same time is neither, and may not be fed."""
        return self._newest is not None and frame.pts_us < self._newest.pts_us

    def feed(self, frame: Pixels) -> list[Pick]:
        """Take the next frame; give the ticks that are decided by it, in order of time."""
        newest = self._newest
        picks: list[Pick] = []
        if newest is not None and not 0 <= frame.pts_us - newest.pts_us <= LONGEST_GAP_US:
            picks += self.flush()
            newest = None
        if newest is None:
            self._grid += 1
            self._start_us, self._tick, self._before_us = frame.pts_us, 0, None
        else:
            self._before_us = newest.pts_us
        while self._time() <= frame.pts_us:
            earlier = newest is not None and 2 * self._time() <= newest.pts_us + frame.pts_us
            picks.append(self._pick(newest if newest is not None and earlier else frame))
        self._newest = frame
        return picks

    def flush(self) -> list[Pick]:
        """Decide without waiting: at most one tick, for the newest frame where it still lasts at that tick.

        A frame lasts as long as the one before it did, and stands for a tick at most half an interval after it. So a
        picture that comes a little before its tick is seen by the question that follows it, and no picture is invented
        after the end: a clip of d seconds has the ticks of [0, d).
        """
        if self._newest is None or self._before_us is None:
            return []
        newest_us = self._newest.pts_us
        wait = self._time() - newest_us
        lasts_us = newest_us - self._before_us - ROUNDING_US
        return [self._pick(self._newest)] if wait < lasts_us and 2 * wait <= self._interval else []

    def restart(self) -> None:
        """Forget the frames so far: the next one begins a grid, whatever its time."""
        self._newest = self._before_us = None

    def _time(self) -> Fraction:
        return self._start_us + self._tick * self._interval

    def _pick(self, frame: Pixels) -> Pick:
        pick = Pick(frame, int(self._time()), self._grid)
        self._tick += 1
        return pick


class Pictures:
    """Picked frames at the model's size. A frame that is picked several times is resized once."""

    def __init__(self, rule: SizeRule, resize: Resize) -> None:
        self._rule = rule
        self._resize = resize
        self._last: tuple[Pixels, np.ndarray] | None = None

    def size(self, frame: Pixels) -> tuple[int, int]:
        """Height and width that the rule gives the frame's source. InputError where no size fits it."""
        return fit(self._rule, *frame.pixels.shape[:2])

    def fitted(self, frame: Pixels) -> np.ndarray:
        """The frame's pixels at the size that the rule gives it."""
        return self.at(frame, self.size(frame))

    def at(self, frame: Pixels, size: tuple[int, int]) -> np.ndarray:
        """The frame's pixels at `size`, `(height, width, 3)` uint8."""
        if self._last is None or self._last[0] is not frame or self._last[1].shape[:2] != size:
            self._last = frame, self._resize(frame.pixels, *size)
        return self._last[1]


class FittedFrame(msgspec.Struct, frozen=True, eq=False):
    """A picked frame at the model's size, `(h, w, 3)`, and its media time; `smaller`: the same at its other size."""

    pixels: np.ndarray
    smaller: np.ndarray | None
    at_us: int


class VideoPatches:
    """Groups picked frames into temporal patches, `(patch, h, w, 3)`.

    The size is fixed at the first frame. A source of another size, or a new grid of the sampler, ends the run: the
    open patch is completed by repeating its last frame, and the size is fixed again. A segment's times are those of
    the first and the last frame in it. `ordered`: frames come in the order of their times, so that one which is older
    than the newest came too late. `smaller`: what makes frames of another size, which segments have too. `fill`: an
    open patch is completed to a multiple of so many frames; 0: to a whole patch. `asked`: of each segment.
    """

    def __init__(
        self,
        sampler: Sampler,
        pictures: Pictures,
        patch: int,
        ordered: bool = False,
        smaller: Pictures | None = None,
        fill: int = 0,
        asked: dict[str, bool | int | float] | None = None,
    ) -> None:
        self._sampler = sampler
        self._fill = fill or patch
        self._asked = asked or {}
        self._ordered = ordered
        self._pictures, self._smaller = pictures, smaller
        self._patch = patch
        self._run: tuple[int, int, int] | None = None
        self._open: list[FittedFrame] = []

    @property
    def held(self) -> int:
        """Picked frames that wait for the rest of their patch."""
        return len(self._open)

    @property
    def held_from_us(self) -> int | None:
        """Media time of the first frame that waits; None where none does."""
        return self._open[0].at_us if self._open else None

    @property
    def patience_us(self) -> int:
        """The media time up to which the frames that are held may wait for the next one."""
        return (self._sampler.newest_us or 0) + self._sampler.wait_us

    def restart(self) -> None:
        """The clock was set again: the next frame begins a grid, whatever its time. Nothing may be held."""
        self._sampler.restart()

    def feed(self, seq: int, frame: Pixels) -> tuple[list[VideoSegment], list[Dropped]]:
        """Take the next frame; give the patches it completes. A second frame of the same time is lost."""
        if not self._sampler.takes(frame) and (self._ordered or not self._sampler.goes_back(frame)):
            return [], [late_frame(seq, frame)]
        return self._take(self._sampler.feed(frame)), []

    def flush(self) -> list[VideoSegment]:
        """Give what is open, completed by repeating the last frame, as the processors do with an odd number."""
        return self._take(self._sampler.flush()) + self._close()

    def _take(self, picks: list[Pick]) -> list[VideoSegment]:
        segments: list[VideoSegment] = []
        for pick in picks:
            height, width = pick.frame.pixels.shape[:2]
            if self._run != (run := (pick.grid, height, width)):
                segments += self._close()
                self._run = run
            pixels = self._pictures.fitted(pick.frame)
            smaller = None if self._smaller is None else self._smaller.fitted(pick.frame)
            self._open.append(FittedFrame(pixels, smaller, pick.frame.pts_us))
            if len(self._open) == self._patch:
                segments += self._close()
        return segments

    def _close(self) -> list[VideoSegment]:
        if not self._open:
            return []
        pixels = whole_patches([shown.pixels for shown in self._open], self._fill)
        others = [shown.smaller for shown in self._open if shown.smaller is not None]
        smaller = whole_patches(others, self._fill) if others else None
        segment = VideoSegment(0, 0, pixels, self._open[0].at_us, self._open[-1].at_us, None, smaller, self._asked)
        self._open = []
        return [segment]


def whole_patches(frames: list[np.ndarray], patch: int) -> np.ndarray:
    """Frames `(h, w, 3)` as one array `(n * patch, h, w, 3)`, the last one repeated until the number is whole."""
    return np.stack(frames + [frames[-1]] * (-len(frames) % patch))


def late_frame(seq: int, frame: Pixels) -> Dropped:
    """The notice that a frame came too late."""
    return Dropped(seq, "video", 1, frame.pts_us, frame.pts_us, "late")
