"""The canonical timeline of one stream. Comes in: decoded frames, pictures and flushes in order of input number; goes
out: segments, what was dropped and what is held.

The segments are a pure function of the inputs, their media times, the lateness and the flushes. They do not depend on
how media was cut into calls and chunks, nor on the order of arrival inside the lateness. Knows no decoders, clocks or
models.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from ..codecs.errors import InputError, LimitError
from ..codecs.frame import Frame, Pixels, Samples
from .audio import SECOND_US, AudioBlocks, MakeResampler, Resampling
from .event import Dropped, Held
from .segment import ImageSegment, MediaSpec, Segment, UnitSegment
from .size import fit, video_rule
from .unit import Units
from .video import Pictures, Resize, Sampler, VideoPatches

# Decoded frames and samples of one stream that may wait for older ones to come.
_MOST_HELD_BYTES = 256 << 20


class Output(msgspec.Struct, frozen=True, eq=False):
    """What one call gave: new segments, media that no segment will have, and what waits for more."""

    segments: list[Segment]
    dropped: list[Dropped]
    held: Held


class Timeline:
    """Turns the frames of one stream into segments, in the order in which they become complete.

    `video_fps` None takes the model's rate. `expected_frames` sizes frames as for a video of that many.
    `audio_in_video` makes units of pictures and sound. With `lateness_us` L frames are first put in the order of
    media time, pictures before sound and then by input number, and wait until media more than L newer has come; 0
    takes them as they arrive. `resize` and `resampler` default to those of `codecs`.

    A segment's `seq` is the input whose call gave it, its `index` counts the segments of that input, also over several
    calls. A call that raises InputError has taken nothing.
    """

    def __init__(
        self,
        spec: MediaSpec,
        *,
        video_fps: float | None = None,
        expected_frames: int | None = None,
        audio_in_video: bool = False,
        lateness_us: int = 0,
        resize: Resize | None = None,
        resampler: MakeResampler | None = None,
    ) -> None:
        """InputError where the model cannot take `audio_in_video`, or not at this rate."""
        self._spec = spec
        self._resize = resize or _resize
        self._order = Order(lateness_us)
        self._video: VideoPatches | None = None
        self._audio: AudioBlocks | None = None
        self._units: Units | None = None
        self._pictures: Pictures | None = None
        self._seq: int | None = None
        self._count = 0
        make_resampler = resampler or _resampler
        fps = spec.video_fps if video_fps is None else video_fps
        if spec.video is not None:
            self._pictures = Pictures(video_rule(spec, expected_frames), self._resize)
        if audio_in_video:
            if self._pictures is None:
                raise InputError(f"audio in video: expected a model that takes video, got one for {self._takes()}")
            self._units = Units(spec, fps, self._pictures, make_resampler, lateness_us)
            return
        if self._pictures is not None:
            self._video = VideoPatches(Sampler(fps), self._pictures, spec.temporal_patch)
        if spec.audio_rate:
            self._audio = AudioBlocks(spec, make_resampler, once=lateness_us > 0)

    def feed(self, seq: int, frames: Sequence[Frame]) -> Output:
        """Take decoded frames of input `seq`. InputError for a modality or a size that the model does not take."""
        for frame in frames:
            self._check(frame)
        self._order.check(frames)
        segments: list[Segment] = []
        dropped: list[Dropped] = []
        for frame in frames:
            if isinstance(frame, Samples) and not frame.samples.shape[1]:
                continue
            self._order.put(seq, frame)
            self._take(self._order.due(), segments, dropped)
        return self._output(seq, segments, dropped)

    def image(self, seq: int, pixels: np.ndarray, pts_us: int | None = None) -> Output:
        """Take a still picture, `(h, w, 3)` uint8. It comes behind what arrived before it; open pairs stay open.

        InputError where the model takes no images, and for a size it cannot take.
        """
        if self._spec.image is None:
            raise self._refusal("image")
        size = fit(self._spec.image, *pixels.shape[:2])
        segments: list[Segment] = []
        dropped: list[Dropped] = []
        self._take(self._order.all(), segments, dropped)
        segments.append(ImageSegment(0, 0, self._resize(pixels, *size), pts_us, pts_us))
        return self._output(seq, segments, dropped)

    def clip(self, seq: int, sounds: Sequence[Samples]) -> Output:
        """Take a complete sound: a run of its own, given out whole. Inside units of video it is fed like any other."""
        if self._audio is None:
            return self.feed(seq, sounds)
        segments: list[Segment] = []
        dropped: list[Dropped] = []
        self._take(self._order.all(), segments, dropped)
        segments += [block.audio for block in self._audio.end()]
        for samples in sounds:
            segments += [block.audio for block in self._audio.feed(samples)]
        segments += [block.audio for block in self._audio.end()]
        dropped += self._lost_sound(self._audio, seq)
        return self._output(seq, segments, dropped)

    def flush(self, seq: int) -> Output:
        """Give out all that is held: an odd frame, a short block, an open unit. Runs of sound end; video goes on."""
        segments: list[Segment] = []
        dropped: list[Dropped] = []
        self._take(self._order.all(), segments, dropped)
        if self._units is not None:
            units, lost = self._units.flush(seq)
            segments += units
            dropped += lost
        if self._video is not None:
            segments += self._video.flush()
        if self._audio is not None:
            segments += [block.audio for block in self._audio.end()]
            dropped += self._lost_sound(self._audio, seq)
        return self._output(seq, segments, dropped)

    def _take(self, frames: Iterator[tuple[int, Frame]], segments: list[Segment], dropped: list[Dropped]) -> None:
        """Lead frames that are in their final order through the rooms behind it."""
        for seq, frame in frames:
            if self._units is not None:
                take = self._units.video(seq, frame) if isinstance(frame, Pixels) else self._units.audio(seq, frame)
                segments += take[0]
                dropped += take[1]
            elif isinstance(frame, Pixels) and self._video is not None:
                patches, late = self._video.feed(seq, frame)
                segments += patches
                dropped += late
            elif isinstance(frame, Samples) and self._audio is not None:
                segments += [block.audio for block in self._audio.feed(frame)]
                dropped += self._lost_sound(self._audio, seq)

    @staticmethod
    def _lost_sound(audio: AudioBlocks, seq: int) -> list[Dropped]:
        lost, audio.lost = audio.lost, []
        return [loss.event(seq) for loss in lost]

    def _output(self, seq: int, segments: list[Segment], dropped: list[Dropped]) -> Output:
        if seq != self._seq:
            self._seq, self._count = seq, 0
        numbered = [_numbered(segment, seq, self._count + offset) for offset, segment in enumerate(segments)]
        self._count += len(segments)
        return Output(numbered, _merged(dropped), self._held())

    def _held(self) -> Held:
        frames, samples = self._order.held(self._spec.audio_rate)
        if self._units is not None:
            return Held(frames + self._units.held_frames, samples + self._units.held_samples)
        video = 0 if self._video is None else self._video.held
        audio = 0 if self._audio is None else self._audio.held
        return Held(frames + video, samples + audio)

    def _check(self, frame: Frame) -> None:
        if isinstance(frame, Pixels):
            if self._pictures is None:
                raise self._refusal("video")
            self._pictures.size(frame)
        elif not self._spec.audio_rate:
            raise self._refusal("audio")

    def _refusal(self, modality: str) -> InputError:
        return InputError(f"{modality}: expected one of what this model takes ({self._takes()}), got {modality}")

    def _takes(self) -> str:
        spec = self._spec
        taken = (("image", spec.image), ("video", spec.video), ("audio", spec.audio_rate))
        return ", ".join(["text", *(name for name, takes in taken if takes)])


class Order:
    """Puts frames in the order of media time, as far as the lateness reaches.

    Sound is ordered sample by sample: a chunk is divided where a picture, or the border of what may go out, falls
    into it. Chunks of sound stay whole against each other.
    """

    def __init__(self, lateness_us: int) -> None:
        self._lateness_us = lateness_us
        self._newest_us: int | None = None
        self._arrivals = 0
        self._video: list[tuple[int, int, int, Pixels]] = []
        self._audio: list[tuple[int, int, int, Samples]] = []
        self._begun: tuple[int, Samples] | None = None  # a chunk of which `_sent` samples have gone out
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

    def put(self, seq: int, frame: Frame) -> None:
        """Take a frame of input `seq`."""
        self._arrivals += 1
        self._held_bytes += _bytes(frame)
        self._newest_us = frame.pts_us if self._newest_us is None else max(self._newest_us, frame.pts_us)
        if isinstance(frame, Pixels):
            heapq.heappush(self._video, (frame.pts_us, seq, self._arrivals, frame))
        else:
            heapq.heappush(self._audio, (frame.pts_us, seq, self._arrivals, frame))

    def due(self) -> Iterator[tuple[int, Frame]]:
        """What is older than the newest by more than the lateness; without a lateness, all."""
        if not self._lateness_us or self._newest_us is None:
            return self.all()
        return self._release(self._newest_us - self._lateness_us)

    def all(self) -> Iterator[tuple[int, Frame]]:
        """Everything."""
        return self._release(None)

    def held(self, rate: int) -> tuple[int, int]:
        """Frames, and samples at `rate`, that wait here."""
        chunks = [(chunk.samples.shape[1], chunk.rate) for *_, chunk in self._audio]
        if self._begun is not None:
            chunks.append((self._begun[1].samples.shape[1] - self._sent, self._begun[1].rate))
        return len(self._video), sum(count * rate // source for count, source in chunks)

    def _release(self, before_us: int | None) -> Iterator[tuple[int, Frame]]:
        while True:
            border_us = before_us
            if self._video and (border_us is None or self._video[0][0] < border_us):
                border_us = self._video[0][0]
            sound_us = self._sound_us()
            if sound_us is not None and (border_us is None or sound_us < border_us):
                yield self._sound_until(border_us)
            elif self._video and (before_us is None or self._video[0][0] < before_us):
                _, seq, _, frame = heapq.heappop(self._video)
                self._held_bytes -= _bytes(frame)
                yield seq, frame
            else:
                return

    def _sound_us(self) -> int | None:
        """Time of the first sample that waits, rounded down."""
        if self._begun is not None:
            chunk = self._begun[1]
            return chunk.pts_us + self._sent * SECOND_US // chunk.rate
        return self._audio[0][0] if self._audio else None

    def _sound_until(self, border_us: int | None) -> tuple[int, Samples]:
        """The samples of one chunk up to `border_us`, at least one."""
        if self._begun is None:
            _, seq, _, chunk = heapq.heappop(self._audio)
            self._held_bytes -= _bytes(chunk)
            self._begun, self._sent = (seq, chunk), 0
        seq, chunk = self._begun
        first, stop = self._sent, chunk.samples.shape[1]
        start_us = chunk.pts_us + first * SECOND_US // chunk.rate
        if border_us is not None:
            stop = min(max(-((chunk.pts_us - border_us) * chunk.rate // SECOND_US), first + 1), stop)
        self._begun, self._sent = ((seq, chunk), stop) if stop < chunk.samples.shape[1] else (None, 0)
        return seq, Samples(chunk.samples[:, first:stop], chunk.rate, start_us)


def _bytes(frame: Frame) -> int:
    return frame.pixels.nbytes if isinstance(frame, Pixels) else frame.samples.nbytes


def _numbered(segment: Segment, seq: int, index: int) -> Segment:
    if isinstance(segment, UnitSegment) and segment.audio is not None:
        audio = msgspec.structs.replace(segment.audio, seq=seq, index=index)
        return msgspec.structs.replace(segment, seq=seq, index=index, audio=audio)
    return msgspec.structs.replace(segment, seq=seq, index=index)


def _merged(dropped: list[Dropped]) -> list[Dropped]:
    """Neighbours of one input, modality and reason as one notice."""
    merged: list[Dropped] = []
    for drop in dropped:
        last = merged[-1] if merged else None
        if last is None or (last.seq, last.modality, last.reason) != (drop.seq, drop.modality, drop.reason):
            merged.append(drop)
            continue
        starts = [time for time in (last.start_us, drop.start_us) if time is not None]
        stops = [time for time in (last.stop_us, drop.stop_us) if time is not None]
        count = last.count + drop.count
        merged[-1] = msgspec.structs.replace(last, count=count, start_us=min(starts), stop_us=max(stops))
    return merged


def _resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    from ..codecs.resize import resize

    return resize(pixels, height, width)


def _resampler(rate: int) -> Resampling:
    from ..codecs.resample import Resampler

    return Resampler(rate)
