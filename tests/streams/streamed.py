"""What the tests of streams/ share: numbers of a small model, stand-ins for the codecs, a way to compare segments.

One sample lasts a millisecond, so that cutting sound rounds no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from penstock.codecs.frame import Frame, Pixels, Samples
from penstock.streams.segment import AudioSegment, EmbeddingSegment, MediaSpec, Segment, SizeRule, UnitSegment
from penstock.streams.timeline import Output, Timeline

RATE = 1000
SPEC = MediaSpec(
    image=SizeRule(4, 16, 400),
    video=SizeRule(4, 64, 256),
    temporal_patch=2,
    video_fps=20.0,
    audio_rate=RATE,
    hop_samples=10,
    block_samples=200,
    lead_samples=15,
    look_ahead_samples=5,
    min_block_frames=3,
    unit_us=200_000,
)


class Delayed:
    """A resampler that keeps the rate, mixes to mono and holds back seven samples until its end, as filters do."""

    def __init__(self, rate: int = RATE) -> None:
        self.rate = rate
        self.kept = np.zeros(0, np.float32)

    def feed(self, samples: Samples) -> np.ndarray:
        assert samples.rate == self.rate
        self.kept = np.concatenate([self.kept, samples.samples.mean(axis=0)])
        ready, self.kept = self.kept[:-7], self.kept[-7:]
        return ready

    def flush(self) -> np.ndarray:
        ready, self.kept = self.kept, np.zeros(0, np.float32)
        return ready


def nearest(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize without any filter."""
    rows = np.arange(height) * pixels.shape[0] // height
    columns = np.arange(width) * pixels.shape[1] // width
    return pixels[rows][:, columns]


def timeline(**options: Any) -> Timeline:
    """A timeline over the small numbers and the stand-ins."""
    return Timeline(options.pop("spec", SPEC), resize=nearest, resampler=Delayed, **options)


def picture(pts_us: int, height: int = 8, width: int = 12) -> Pixels:
    """A frame whose every pixel tells its time in milliseconds, as two digits to the base 256 and one constant."""
    number = pts_us // 1000
    return Pixels(np.full((height, width, 3), (number // 256 % 256, number % 256, 7), np.uint8), pts_us)


def shown(pixels: np.ndarray) -> list[int]:
    """The times in milliseconds that the frames of a segment tell."""
    return [int(frame[0, 0, 0]) * 256 + int(frame[0, 0, 1]) for frame in pixels]


def sound(start_ms: int, count: int, origin_ms: int = 0) -> Samples:
    """`count` samples; the value of each is its time behind `origin_ms` in milliseconds."""
    values = np.arange(start_ms - origin_ms, start_ms - origin_ms + count, dtype=np.float32)
    return Samples(values[None], RATE, start_ms * 1000)


def cut(whole: Samples, places: list[int]) -> list[Samples]:
    """One sound in pieces."""
    borders = [0, *sorted({p for p in places if 0 < p < whole.samples.shape[1]}), whole.samples.shape[1]]
    step = 1_000_000 // whole.rate
    return [
        Samples(whole.samples[:, first:last], whole.rate, whole.pts_us + first * step)
        for first, last in zip(borders, borders[1:], strict=False)
    ]


def body(audio: AudioSegment, spec: MediaSpec = SPEC) -> np.ndarray:
    """The samples of the block alone, without lead and look-ahead."""
    count = round((audio.stop_us - audio.start_us) * spec.audio_rate / 1_000_000)
    return audio.samples[audio.lead : audio.lead + count]


def face(segment: Segment | None) -> tuple[Any, ...] | None:
    """All of a segment but the input it is counted under, to compare."""
    if segment is None:
        return None
    times = type(segment).__name__, segment.start_us, segment.stop_us
    if isinstance(segment, AudioSegment):
        return (*times, segment.samples.tobytes(), segment.lead, segment.frames, segment.run)
    assert not isinstance(segment, EmbeddingSegment)
    audio = face(segment.audio) if isinstance(segment, UnitSegment) else None
    return (*times, segment.pixels.shape, segment.pixels.tobytes(), audio)


def faces(outputs: list[Output]) -> list[tuple[Any, ...] | None]:
    return [face(segment) for output in outputs for segment in output.segments]


def fed(line: Timeline, frames: Sequence[Frame], flush: bool = True) -> list[Output]:
    """Each frame as an input of its own, then a flush."""
    outputs = [line.feed(seq, [frame]) for seq, frame in enumerate(frames)]
    return [*outputs, line.flush(len(frames))] if flush else outputs


def segments(outputs: list[Output]) -> list[Any]:
    return [segment for output in outputs for segment in output.segments]


def lost(outputs: list[Output]) -> list[tuple[str, str, int]]:
    """Modality, reason and count of what was dropped."""
    return [(drop.modality, drop.reason, drop.count) for output in outputs for drop in output.dropped]
