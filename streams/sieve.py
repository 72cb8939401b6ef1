"""Which segments go to the model, of those that a stream may leave out, and at which size. Comes in: segments in the
order of their times; goes out: the same with those replaced that do not go to the model, and notices of these. Knows no
streams, clocks or models.

Three rules. What shows or says nothing new is left out ("still"). Video has a lower rate while nothing happens
("rate"), and its frames are smaller then. For all of them a piece of video is compared with the newest frame that was
*kept*, not with the one before it: so a slow change adds up until it shows. Frames are compared at their full size. All
of it is causal, a pure function of the segments so far and of the demand for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec
import numpy as np

from .event import Dropped
from .segment import AudioSegment, DroppedSegment, Segment, Sifted, TurnEnd, VideoSegment

# A picture is compared in cells of so many pixels a side, by the mean of each colour: a camera's noise averages out.
_CELL = 4
# From how many levels of 255 on a cell is another one, and which share of cells says that the picture is another one.
_LEVELS, _SHARE = 10.0, 0.001
# Which share of cells says that the scene is another one, and for how long video has its full rate then.
_SCENE, _NEW_US = 0.3, 5_000_000
# For so long frames keep the size that a question, a reply or a busy machine gave them: another begins another block.
_SAME_SIZE_US = 5_000_000
# Sound is silent if no stretch of 20 ms of it is louder than this, a root of the mean square: -50 dB of full scale.
_STRETCHES_A_SECOND, _SILENT = 50, 0.00316


class Demand(StrEnum):
    """What asks for a stream's media, and how much of it the machine can take."""

    ASKED = "asked"  # a question waits for its reply, or a reply speaks
    IDLE = "idle"  # neither
    LOADED = "loaded"  # earlier media of the stream waits too long


class Sieve:
    """Sifts the segments of one stream.

    `still_us`: at least one piece of video and of sound goes through in so much media time, however little it shows or
    says. `idle_us`: at least one of video does, while there is no more demand. None: nothing is left out by this rule.
    Video that has two sizes goes through with one of them. Pictures of their own and units of picture and sound always
    go through as they are.
    """

    def __init__(self, audio_rate: int, still_us: int | None, idle_us: int | None = None) -> None:
        self._still_us, self._idle_us, self._rate = still_us, idle_us, audio_rate
        self._stretch = max(1, audio_rate // _STRETCHES_A_SECOND)
        self._kept_us: dict[str, int] = {}  # when the last piece of each kind that was kept began
        self._shown: np.ndarray | None = None  # the newest frame that was kept, in cells
        self._scene_us: int | None = None  # when the newest piece began that is another scene
        self._demand_us: dict[Demand, int] = {}  # when the newest piece began for which there was this demand

    def sift(
        self, segments: Iterable[Segment | TurnEnd], seq: int, demand: Demand = Demand.IDLE
    ) -> tuple[list[Sifted], list[Dropped]]:
        """The segments, those of them as `DroppedSegment` that do not go through; and notices of these, whose input is
        `seq`."""
        sifted: list[Sifted] = []
        dropped: list[Dropped] = []
        for segment in segments:
            reason = self._reason(segment, demand)
            if reason and isinstance(segment, VideoSegment | AudioSegment):
                dropped.append(self._notice(seq, segment, reason))
                sifted.append(_without_content(segment))
            else:
                sifted.append(self._sized(segment) if isinstance(segment, VideoSegment) else segment)
        return sifted, dropped

    def _reason(self, segment: Segment | TurnEnd, demand: Demand) -> str:
        """Why a segment is left out; empty: it goes through."""
        match segment:
            case VideoSegment():
                return self._of_video(segment, demand)
            case AudioSegment():
                return self._of_audio(segment)
            case _:
                return ""

    def _of_video(self, segment: VideoSegment, demand: Demand) -> str:
        cells, start_us = _cells(segment.pixels), segment.start_us
        self._demand_us[demand] = start_us
        changed = self._changed(cells)
        if changed > _SCENE:
            self._scene_us = start_us
        if self._still_us is not None and changed <= _SHARE and not self._is_due("video", start_us, self._still_us):
            return "still"
        full = demand is Demand.ASKED or (demand is Demand.IDLE and _is_soon(start_us, self._scene_us, _NEW_US))
        if self._idle_us is not None and not full and not self._is_due("video", start_us, self._idle_us):
            return "rate"
        self._shown, self._kept_us["video"] = cells[-1], start_us
        return ""

    def _of_audio(self, segment: AudioSegment) -> str:
        if self._still_us is None:
            return ""
        if not self._is_due("audio", segment.start_us, self._still_us) and not self._sounds(segment):
            return "still"
        self._kept_us["audio"] = segment.start_us
        return ""

    def _is_due(self, kind: str, start_us: int, every_us: int) -> bool:
        """None was kept for so long, or the clock was set back."""
        last_us = self._kept_us.get(kind)
        return last_us is None or not last_us <= start_us < last_us + every_us

    def _sized(self, segment: VideoSegment) -> VideoSegment:
        """The segment with the one size that goes in. A machine that was busy just now has the last word."""
        if segment.smaller is None:
            return segment
        start_us = segment.start_us
        asked, loaded = (
            _is_soon(start_us, self._demand_us.get(which), _SAME_SIZE_US) for which in (Demand.ASKED, Demand.LOADED)
        )
        full = not loaded and (asked or _is_soon(start_us, self._scene_us, _NEW_US))
        return msgspec.structs.replace(segment, pixels=segment.pixels if full else segment.smaller, smaller=None)

    def _changed(self, cells: np.ndarray) -> float:
        """The share of cells that are other ones than in the newest frame that was kept, where that is largest."""
        if self._shown is None or self._shown.shape != cells.shape[1:]:
            return 1.0
        changed = (np.abs(cells - self._shown) > _LEVELS).any(-1)
        return float(changed.mean((1, 2)).max())

    def _notice(self, seq: int, segment: VideoSegment | AudioSegment, reason: str) -> Dropped:
        sees = isinstance(segment, VideoSegment)
        count = len(segment.pixels) if sees else self._count(segment)
        return Dropped(seq, "video" if sees else "audio", count, segment.start_us, segment.stop_us, reason)

    def _count(self, segment: AudioSegment) -> int:
        """Samples of the block itself, without its lead and its look-ahead."""
        return round((segment.stop_us - segment.start_us) * self._rate / 1_000_000)

    def _sounds(self, segment: AudioSegment) -> bool:
        samples = segment.samples[segment.lead : segment.lead + self._count(segment)]
        whole = len(samples) // self._stretch * self._stretch
        stretches = [samples[:whole].reshape(-1, self._stretch), samples[whole:][None]]
        return any(bool((np.square(part).mean(1) > _SILENT**2).any()) for part in stretches if part.size)


def _is_soon(start_us: int, after_us: int | None, within_us: int) -> bool:
    """Less than `within_us` after what began at `after_us`, if anything did. Not where the clock was set back."""
    return after_us is not None and after_us <= start_us < after_us + within_us


def _cells(pixels: np.ndarray) -> np.ndarray:
    """Frames `(n, h, w, 3)` as means over cells, `(n, rows, columns, 3)` float32. The last row and column of cells take
    the pixels that are left over."""
    sides = pixels.shape[1:3]
    rows, columns = (np.arange(0, max(1, side - side % _CELL), _CELL) for side in sides)
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.float32), rows, 1), columns, 2)
    tall, wide = (np.diff(np.append(edges, side)) for edges, side in zip((rows, columns), sides, strict=True))
    return sums / (tall[:, None] * wide)[..., None]


def _without_content(segment: VideoSegment | AudioSegment) -> DroppedSegment:
    """What stands for a segment that does not go to the model."""
    if isinstance(segment, VideoSegment):
        black = np.broadcast_to(np.uint8(0), segment.pixels.shape)
        nothing = msgspec.structs.replace(segment, pixels=black, smaller=None)
    else:
        still = np.broadcast_to(np.float32(0), segment.samples.shape)
        nothing = msgspec.structs.replace(segment, samples=still, power=None)
    return DroppedSegment(segment.seq, segment.index, nothing)
