"""The canonical timeline of one stream. Comes in: decoded frames, pictures and flushes in order of input number; goes
out: segments, what was dropped and what is held.

The segments are a pure function of the inputs, their media times, the lateness and the flushes. They do not depend on
how media was cut into calls and chunks, nor on the order of arrival inside the lateness. Knows no decoders, clocks or
models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from ..codecs.frame import Frame, Pixels, Samples
from ..errors import InputError
from .audio import AudioBlocks, MakeResampler, Resampling
from .event import Dropped, Held, SpeechStarted, SpeechStopped
from .listening.ear import Ear, Heard
from .order import LIVE, FrameSource, Order
from .segment import DroppedSegment, EmbeddingSegment, ImageSegment, MediaSpec, Segment, Sifted, TurnEnd, UnitSegment
from .sieve import Demand, Sieve
from .size import fit, smaller_rule, video_rule
from .tracks import Tracks
from .unit import Units
from .video import Pictures, Resize, Sampler, VideoPatches


class Output(msgspec.Struct, frozen=True, eq=False):
    """What one call gave: new pieces in order, notices of media that does not go to the model, what waits for more, and
    who speaks.

    The pieces are segments, what stands for those that were dropped, and the places where a reply begins.
    """

    pieces: list[Sifted]
    dropped: list[Dropped]
    held: Held
    speech: list[SpeechStarted | SpeechStopped] = []

    @property
    def segments(self) -> list[Segment]:
        """What goes to the model."""
        return [piece for piece in self.pieces if not isinstance(piece, DroppedSegment | TurnEnd)]


class Timeline:
    """Turns the frames of one stream into segments, in the order in which they become complete.

    `video_fps` None takes the model's rate. `expected_frames` sizes frames as for a video of that many.
    `audio_in_video` makes units of pictures and sound. With `lateness_us` L frames are first put in the order of
    media time, pictures before sound and then by input number, and wait until media more than L newer has come; 0
    takes them as they arrive. `still_us`: what shows or says nothing new is dropped, but for one piece in so much media
    time (None: nothing is). `idle_fps`, `idle_pixels`: the rate of video while nothing happens, and the most pixels of
    a frame then (None: always the same), as `Sieve` has it; `demand` may be set before each call. `ear`, which may be
    set between calls: of the sound, speech goes on, and a place where a reply begins behind it. `resize` and
    `resampler` default to those of `codecs`.

    Without a lateness a frame that is older than the newest says that its clock was set back, and begins a new grid.
    With one, the second piece of media in a row that is older than the lateness allows says so; the first is late.

    A segment's `seq` is the input whose call gave it, its `index` counts the segments of that input, also over several
    calls. A call that raises InputError or LimitError has taken nothing.
    """

    def __init__(
        self,
        spec: MediaSpec,
        *,
        video_fps: float | None = None,
        expected_frames: int | None = None,
        audio_in_video: bool = False,
        lateness_us: int = 0,
        still_us: int | None = None,
        idle_fps: float | None = None,
        idle_pixels: int | None = None,
        resize: Resize | None = None,
        resampler: MakeResampler | None = None,
    ) -> None:
        """InputError where the model cannot take `audio_in_video`, or not at this rate, or frames of `idle_pixels`."""
        self._spec = spec
        self.demand = Demand.IDLE
        self.ear: Ear | None = None
        self._speech: list[SpeechStarted | SpeechStopped] = []
        self._resize = resize or _resize
        self._order = Order(lateness_us)
        self._pictures: Pictures | None = None
        self._seq: int | None = None
        self._count = 0
        make_resampler = resampler or _resampler
        fps = spec.video_fps if video_fps is None else video_fps
        idle_us = None if idle_fps is None else _idle_us(spec, fps, idle_fps)
        self._sieve, smaller = None, None
        if any(rule is not None for rule in (still_us, idle_us, idle_pixels)):
            self._sieve = Sieve(spec.audio_rate, still_us, idle_us)
        if spec.video is not None:
            rule = video_rule(spec, expected_frames)
            self._pictures = Pictures(rule, self._resize)
            smaller = None if idle_pixels is None else Pictures(smaller_rule(rule, idle_pixels), self._resize)
        if audio_in_video:
            if self._pictures is None:
                raise InputError(f"audio in video: expected a model that takes video, got one for {self._takes()}")
            self._rooms: Units | Tracks = Units(spec, fps, self._pictures, make_resampler, lateness_us)
            return
        patches = sounds = None
        if self._pictures is not None:
            ordered, patch = lateness_us > 0, spec.temporal_patch
            asked = spec.asked
            if spec.by_length and expected_frames is not None:
                asked = asked | {"expected_frames": expected_frames}
            patches = VideoPatches(Sampler(fps), self._pictures, patch, ordered, smaller, spec.video_fill, asked)
        if spec.audio_rate:
            sounds = AudioBlocks(spec, make_resampler, once=lateness_us > 0)
        self._rooms = Tracks(patches, sounds)

    def unheard(self, seq: int) -> Output:
        """What the ear holds goes on where it is speech, since nobody listens any more or no more media will come.
        There is an ear."""
        segments: list[Segment | TurnEnd] = []
        dropped: list[Dropped] = []
        self._take(self._order.all(), segments, dropped)
        assert self.ear is not None
        self._hear(seq, self.ear.end(seq, "end"), LIVE, segments, dropped)
        return self._output(seq, segments, dropped)

    def feed(self, seq: int, frames: Sequence[Frame], source: FrameSource = LIVE) -> Output:
        """Take decoded frames of input `seq`. InputError for a modality or a size that the model does not take."""
        for frame in frames:
            self._check(frame)
        self._order.check(frames)
        segments: list[Segment | TurnEnd] = []
        dropped: list[Dropped] = []
        for frame in frames:
            if isinstance(frame, Samples) and not frame.samples.shape[1]:
                continue
            if self._order.restarts(frame):
                self._give_all(seq, segments, dropped)
                self._order.restart()
                self._rooms.restart()
            self._order.put(seq, frame, source)
            self._take(self._order.due(), segments, dropped)
        return self._output(seq, segments, dropped)

    def image(self, seq: int, pixels: np.ndarray, pts_us: int | None = None) -> Output:
        """Take a still picture, `(h, w, 3)` uint8. It comes after all that arrived before it.

        InputError where the model takes no images, and for a size it cannot take.
        """
        if self._spec.image is None:
            raise self._refusal("image")
        size = fit(self._spec.image, *pixels.shape[:2])
        segments: list[Segment | TurnEnd] = []
        dropped: list[Dropped] = []
        self._give_all(seq, segments, dropped)
        segments.append(ImageSegment(0, 0, self._resize(pixels, *size), pts_us, pts_us, self._spec.asked))
        return self._output(seq, segments, dropped)

    def rows(self, seq: int, segment: EmbeddingSegment) -> Output:
        """Take rows that were made elsewhere. They come after all that arrived before them."""
        segments: list[Segment | TurnEnd] = []
        dropped: list[Dropped] = []
        self._give_all(seq, segments, dropped)
        segments.append(segment)
        return self._output(seq, segments, dropped)

    def clip(self, seq: int, sounds: Sequence[Samples]) -> Output:
        """Take a complete sound: a run of its own, given out whole. Inside units of video it is fed like any other."""
        if not isinstance(self._rooms, Tracks) or not self._spec.audio_rate:
            return self.feed(seq, sounds)
        segments: list[Segment | TurnEnd] = []
        dropped: list[Dropped] = []
        self._take(self._order.all(), segments, dropped)
        _extend(segments, dropped, self._rooms.clip(seq, sounds))
        return self._output(seq, segments, dropped)

    def flush(self, seq: int) -> Output:
        """Give out all that is held: an odd frame, a short block, an open unit. Runs of sound end; video goes on."""
        segments: list[Segment | TurnEnd] = []
        dropped: list[Dropped] = []
        self._give_all(seq, segments, dropped)
        return self._output(seq, segments, dropped)

    def _give_all(self, seq: int, segments: list[Segment | TurnEnd], dropped: list[Dropped]) -> None:
        """All that is held, what came first first."""
        self._take(self._order.all(), segments, dropped)
        _extend(segments, dropped, self._rooms.flush(seq))

    def _take(
        self,
        frames: Iterator[tuple[int, Frame, FrameSource]],
        segments: list[Segment | TurnEnd],
        dropped: list[Dropped],
    ) -> None:
        """Lead frames that are in their final order through the rooms after it."""
        for seq, frame, source in frames:
            if isinstance(frame, Pixels):
                _extend(segments, dropped, self._rooms.video(seq, frame, source))
            elif self.ear is not None:
                heard = self.ear.hear(seq, frame, self.demand is Demand.ASKED)
                self._hear(seq, heard, source, segments, dropped)
            else:
                _extend(segments, dropped, self._rooms.audio(seq, frame, source))

    def _hear(
        self,
        seq: int,
        heard: list[Heard],
        source: FrameSource,
        segments: list[Segment | TurnEnd],
        dropped: list[Dropped],
    ) -> None:
        """What the ear gives. Where speech stops, what is held goes out, and a reply may begin."""
        assert self.ear is not None
        for one in heard:
            if isinstance(one, Samples):
                _extend(segments, dropped, self._rooms.audio(seq, one, source))
                continue
            self._speech.append(one)
            if isinstance(one, SpeechStarted) and self.ear.turns.interrupt:
                # In one piece of sound somebody has gone on to speak: a reply to what was before would be cut at once.
                segments[:] = [piece for piece in segments if not isinstance(piece, TurnEnd)]
            if isinstance(one, SpeechStopped) and not self.ear.passes:
                _extend(segments, dropped, self._rooms.flush(seq))
                if self.ear.turns.respond:
                    segments.append(TurnEnd(0, 0, one.turn, one.at_us))
        lost, self.ear.lost = self.ear.lost, []
        dropped += [loss.event(seq) for loss in lost]

    def _output(self, seq: int, segments: list[Segment | TurnEnd], dropped: list[Dropped]) -> Output:
        sifted: list[Sifted] = [*segments]
        if self._sieve is not None:
            sifted, left_out = self._sieve.sift(segments, seq, self.demand)
            dropped = [*dropped, *left_out]
        if seq != self._seq:
            self._seq, self._count = seq, 0
        numbered = [_numbered(segment, seq, self._count + offset) for offset, segment in enumerate(sifted)]
        self._count += len(sifted)
        speech, self._speech = [_asking(one, seq) for one in self._speech], []
        return Output(numbered, _merged(dropped), self.held, speech)

    @property
    def held(self) -> Held:
        """What waits for more."""
        frames, samples = self._order.held(self._spec.audio_rate)
        return Held(frames + self._rooms.held_frames, samples + self._rooms.held_samples)

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


def _idle_us(spec: MediaSpec, fps: float, idle_fps: float) -> int:
    """How long it is from one temporal patch to the next at the idle rate, less half a patch, since media times are not
    exact."""
    return round((1 / idle_fps - 0.5 / fps) * spec.temporal_patch * 1_000_000)


def _extend(
    segments: list[Segment | TurnEnd], dropped: list[Dropped], given: tuple[Sequence[Segment], Sequence[Dropped]]
) -> None:
    segments += given[0]
    dropped += given[1]


def _numbered(segment: Sifted, seq: int, index: int) -> Sifted:
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


def _asking(speech: SpeechStarted | SpeechStopped, seq: int) -> SpeechStarted | SpeechStopped:
    """Where speech stops a question may stand, which has the number of the input that is taken now."""
    return msgspec.structs.replace(speech, seq=seq) if isinstance(speech, SpeechStopped) else speech
