"""Leaves out what shows and says nothing new. Comes in: segments in the order of their times; goes out: the same with
those replaced that do not go to the model, and notices of these. Knows no streams, clocks or models.

A piece of video is compared with the newest frame that was *kept*, not with the one before it: so a slow change adds up
until it shows. All of it is causal, a pure function of the segments so far.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from .event import Dropped
from .segment import AudioSegment, DroppedSegment, Segment, Sifted, VideoSegment

# A picture is compared in cells of so many pixels a side, by the mean of each colour: a camera's noise averages out.
_CELL = 4
# From how many levels of 255 on a cell is another one, and which share of cells says that the picture is another one.
_LEVELS, _SHARE = 10.0, 0.001
# Sound is silent if no stretch of 20 ms of it is louder than this, a root of the mean square: -50 dB of full scale.
_STRETCHES_A_SECOND, _SILENT = 50, 0.00316


class Still:
    """Sifts the segments of one stream. At least one piece of each kind goes through in each `every_us` of media time.

    Pictures of their own and units of picture and sound always go through.
    """

    def __init__(self, every_us: int, audio_rate: int) -> None:
        self._every_us = every_us
        self._stretch = max(1, audio_rate // _STRETCHES_A_SECOND)
        self._kept_us: dict[str, int] = {}  # when the last piece of each kind that was kept began
        self._shown: np.ndarray | None = None  # the newest frame that was kept, in cells

    def sift(self, segments: Iterable[Segment], seq: int) -> tuple[list[Sifted], list[Dropped]]:
        """The segments, those of them as `DroppedSegment` that do not go through; and notices of these, whose input is
        `seq`."""
        sifted: list[Sifted] = []
        dropped: list[Dropped] = []
        for segment in segments:
            match segment:
                case VideoSegment():
                    cells = _cells(segment.pixels)
                    if self._is_due("video", segment.start_us) or self._differs(cells):
                        self._shown = cells[-1]
                        self._kept_us["video"] = segment.start_us
                        sifted.append(segment)
                    else:
                        dropped.append(_notice(seq, "video", len(segment.pixels), segment))
                        sifted.append(without_content(segment))
                case AudioSegment():
                    if self._is_due("audio", segment.start_us) or self._sounds(segment):
                        self._kept_us["audio"] = segment.start_us
                        sifted.append(segment)
                    else:
                        dropped.append(_notice(seq, "audio", len(segment.samples) - segment.lead, segment))
                        sifted.append(without_content(segment))
                case _:
                    sifted.append(segment)
        return sifted, dropped

    def _is_due(self, kind: str, start_us: int) -> bool:
        """None was kept for so long, or the clock was set back."""
        last_us = self._kept_us.get(kind)
        return last_us is None or not last_us <= start_us < last_us + self._every_us

    def _differs(self, cells: np.ndarray) -> bool:
        if self._shown is None or self._shown.shape != cells.shape[1:]:
            return True
        changed = (np.abs(cells - self._shown) > _LEVELS).any(-1)
        return bool((changed.mean((1, 2)) > _SHARE).any())

    def _sounds(self, segment: AudioSegment) -> bool:
        samples = segment.samples[segment.lead :]
        whole = len(samples) // self._stretch * self._stretch
        stretches = [samples[:whole].reshape(-1, self._stretch), samples[whole:][None]]
        return any(bool((np.square(part).mean(1) > _SILENT**2).any()) for part in stretches if part.size)


def _cells(pixels: np.ndarray) -> np.ndarray:
    """Frames `(n, h, w, 3)` as means over cells, `(n, rows, columns, 3)` float32. The last row and column of cells take
    the pixels that are left over."""
    sides = pixels.shape[1:3]
    rows, columns = (np.arange(0, max(1, side - side % _CELL), _CELL) for side in sides)
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.float32), rows, 1), columns, 2)
    tall, wide = (np.diff(np.append(edges, side)) for edges, side in zip((rows, columns), sides, strict=True))
    return sums / (tall[:, None] * wide)[..., None]


def without_content(segment: VideoSegment | AudioSegment) -> DroppedSegment:
    """What stands for a segment that does not go to the model."""
    if isinstance(segment, VideoSegment):
        nothing = msgspec.structs.replace(segment, pixels=np.zeros((len(segment.pixels), 0, 0, 3), np.uint8))
    else:
        nothing = msgspec.structs.replace(segment, samples=np.zeros(0, np.float32), lead=0, power=None)
    return DroppedSegment(segment.seq, segment.index, nothing)


def _notice(seq: int, modality: str, count: int, segment: VideoSegment | AudioSegment) -> Dropped:
    return Dropped(seq, modality, count, segment.start_us, segment.stop_us, "still")
