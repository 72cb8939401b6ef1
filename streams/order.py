"""Frames and sound into the order of media time. Comes in: decoded frames as they arrive; goes out: the same, each when
nothing that is older may still come. Knows no sizes, rates or models.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import msgspec

from ..codecs.frame import Frame, Pixels, Samples
from ..errors import LimitError
from .audio import SECOND_US

# Decoded frames and samples of one stream that may wait for older ones to come.
_MOST_HELD_BYTES = 256 << 20


class FrameSource(msgspec.Struct, frozen=True):
    """Where frames come from. `name`: media of one named source belongs together (a file's picture and its sound).
    `timed`: their media times may be compared with those of other sources.
    """

    name: str = ""
    timed: bool = True


LIVE = FrameSource()


class Order:
    """Puts frames in the order of media time, as far as the lateness reaches.

    Sound is ordered sample by sample: a chunk is divided where a picture, or the border of what may go out, falls
    into it. Chunks of sound stay whole against each other.
    """

    def __init__(self, lateness_us: int) -> None:
        self._lateness_us = lateness_us
        self._newest_us: int | None = None
        self._arrivals = 0
        self._strays = 0  # media in a row that is older than the lateness allows
        self._video: list[tuple[int, int, int, Pixels, FrameSource]] = []
        self._audio: list[tuple[int, int, int, Samples, FrameSource]] = []
        self._begun: tuple[int, Samples, FrameSource] | None = None  # a chunk of which `_sent` samples have gone out
        self._sent = 0
        self._held_bytes = 0  # of what has not begun to go out

    def check(self, frames: Sequence[Frame]) -> None:
        """LimitError where more would wait here than may."""
        if not self._lateness_us:
            return
        held = self._held_bytes + sum(map(_bytes, frames))
        if held > _MOST_HELD_BYTES:
            raise LimitError(
                f"media that waits for its order: expected at most {_MOST_HELD_BYTES} bytes of frames and samples in "
                f"lateness_us {self._lateness_us}, got {held}"
            )

    def restarts(self, frame: Frame) -> bool:
        """Whether this frame, the second in a row that is older than the lateness allows, says that the clock was set
        back."""
        if not self._lateness_us or self._newest_us is None or frame.pts_us >= self._newest_us - self._lateness_us:
            self._strays = 0
            return False
        self._strays += 1
        return self._strays > 1

    def restart(self) -> None:
        """Forget what the newest media was. Nothing may wait."""
        self._newest_us, self._strays = None, 0

    def put(self, seq: int, frame: Frame, source: FrameSource) -> None:
        """Take a frame of input `seq`."""
        self._arrivals += 1
        self._held_bytes += _bytes(frame)
        self._newest_us = frame.pts_us if self._newest_us is None else max(self._newest_us, frame.pts_us)
        if isinstance(frame, Pixels):
            heapq.heappush(self._video, (frame.pts_us, seq, self._arrivals, frame, source))
        else:
            heapq.heappush(self._audio, (frame.pts_us, seq, self._arrivals, frame, source))

    def due(self) -> Iterator[tuple[int, Frame, FrameSource]]:
        """What is older than the newest by more than the lateness; without a lateness, all."""
        if not self._lateness_us or self._newest_us is None:
            return self.all()
        return self._release(self._newest_us - self._lateness_us)

    def all(self) -> Iterator[tuple[int, Frame, FrameSource]]:
        """Everything."""
        return self._release(None)

    def held(self, rate: int) -> tuple[int, int]:
        """Frames, and samples at `rate`, that wait here."""
        chunks = [(chunk.samples.shape[1], chunk.rate) for *_, chunk, _ in self._audio]
        if self._begun is not None:
            chunks.append((self._begun[1].samples.shape[1] - self._sent, self._begun[1].rate))
        return len(self._video), sum(count * rate // source for count, source in chunks)

    def _release(self, before_us: int | None) -> Iterator[tuple[int, Frame, FrameSource]]:
        while True:
            border_us = before_us
            if self._video and (border_us is None or self._video[0][0] < border_us):
                border_us = self._video[0][0]
            sound_us = self._sound_us()
            if sound_us is not None and (border_us is None or sound_us < border_us):
                yield self._sound_until(border_us)
            elif self._video and (before_us is None or self._video[0][0] < before_us):
                _, seq, _, frame, source = heapq.heappop(self._video)
                self._held_bytes -= _bytes(frame)
                yield seq, frame, source
            else:
                return

    def _sound_us(self) -> int | None:
        """Time of the first sample that waits, rounded down."""
        if self._begun is not None:
            chunk = self._begun[1]
            return chunk.pts_us + self._sent * SECOND_US // chunk.rate
        return self._audio[0][0] if self._audio else None

    def _sound_until(self, border_us: int | None) -> tuple[int, Samples, FrameSource]:
        """The samples of one chunk up to `border_us`, at least one."""
        if self._begun is None:
            _, seq, _, chunk, source = heapq.heappop(self._audio)
            self._held_bytes -= _bytes(chunk)
            self._begun, self._sent = (seq, chunk, source), 0
        seq, chunk, source = self._begun
        first, stop = self._sent, chunk.samples.shape[1]
        start_us = chunk.pts_us + first * SECOND_US // chunk.rate
        if border_us is not None:
            stop = min(max(-((chunk.pts_us - border_us) * chunk.rate // SECOND_US), first + 1), stop)
        self._begun, self._sent = ((seq, chunk, source), stop) if stop < chunk.samples.shape[1] else (None, 0)
        return seq, Samples(chunk.samples[:, first:stop], chunk.rate, start_us), source


def _bytes(frame: Frame) -> int:
    return frame.pixels.nbytes if isinstance(frame, Pixels) else frame.samples.nbytes
