"""One stream's way in: items are decoded and put on the stream's timeline. Synchronous; called from worker threads, one
call at a time per stream. What comes in: items and flushes with their numbers. What goes out: segments, drops, what is
held.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import closing

import msgspec
import numpy as np
import torch

from ..codecs.decoders import Decoders
from ..codecs.frame import Frame, Lost, Pixels, Samples
from ..codecs.mel import log_mel
from ..codecs.pcm import decode_pcm
from ..codecs.picture import check_pixels, raw_picture
from ..codecs.reading import Reading
from ..codecs.resample import Resampler
from ..errors import InputError, LimitError, MediaError, PenstockError
from ..streams.event import Dropped
from ..streams.format import choose
from ..streams.item import AudioBytes, AudioChunk, Buffer, Embedding, Image, Item, VideoBytes, VideoFrame
from ..streams.listening.detectors import Hearing, find, find_ends
from ..streams.listening.ear import Ear
from ..streams.order import FrameSource
from ..streams.requests.options import sized
from ..streams.requests.request import Request
from ..streams.requests.turns import TurnDetection
from ..streams.requests.whole import file_frames
from ..streams.rows import embedding_segment
from ..streams.segment import AudioSegment, MediaSpec, UnitSegment
from ..streams.sieve import Demand
from ..streams.timeline import Output, Timeline
from .lookback import Clip

# An encoded file is decoded in pieces of this size, so that segments go on while the rest is decoded.
_PIECE_BYTES = 64 << 10
# A whole file of sound up to this size is decoded before any of it goes on.
_CLIP_BYTES = 8 << 20


class StreamResampler(Resampler):
    """A resampler that can be copied: the copy begins without a past, since the filter's own state cannot be copied."""

    def __init__(self, rate: int) -> None:
        super().__init__(rate)
        self._rate = rate

    def __deepcopy__(self, memo: dict) -> StreamResampler:
        return StreamResampler(self._rate)


class Intake:
    """The decoders and the timeline of one stream. turns: how many turns of the stream have begun."""

    def __init__(
        self,
        spec: MediaSpec,
        request: Request,
        decoders: Decoders,
        hearing: Hearing | None = None,
        turns: int = 0,
    ) -> None:
        self._decoders = decoders
        self._hearing = hearing = hearing or Hearing()
        # The model hears what comes while it speaks, and decides by itself.
        self._live = choose(request.format, hearing.live_trained)[0].holds
        self._sized = sized(spec, request.processor)
        self._timeline = Timeline(
            self._sized,
            video_fps=request.video_fps,
            expected_frames=request.expected_frames,
            audio_in_video=request.audio_in_video,
            lateness_us=request.lateness_us,
            still_us=None if request.drop_still is None else round(request.drop_still * 1_000_000),
            idle_fps=request.video_fps_idle,
            idle_pixels=request.video_pixels_idle,
            resampler=StreamResampler,
        )
        self._spec = spec
        self._request = request
        # Where media without a time of its own goes: after what came before it of its kind.
        self._frame_us = round(1_000_000 / (request.video_fps or spec.video_fps))
        self._frame_end_us = 0
        self._sound_end_us = 0
        self._containers: dict[str, tuple[Reading, FrameSource]] = {}  # the file of each kind that is being read
        self._files = 0
        self._turns = turns  # how many turns had begun when nobody listened any more
        if request.turn_detection is not None:
            self._timeline.ear = self._ear(request.turn_detection)

    def take(self, seq: int, item: Item | Clip, demand: Demand = Demand.IDLE) -> Generator[Output, None, None]:
        """Decode one item or clip, piece by piece. Raises MediaError or InputError; the stream can go on."""
        self._timeline.demand = demand
        match item:
            case Image():
                yield self._timeline.image(seq, self._picture(item.data), item.pts_us)
            case VideoFrame():
                pts_us = self._frame_end_us if item.pts_us is None else item.pts_us
                yield self._feed(seq, [self._decoded(item, pts_us)], FrameSource(timed=item.pts_us is not None))
            case AudioChunk():
                pts_us = self._sound_end_us if item.pts_us is None else item.pts_us
                yield self._feed(seq, [self._decoded(item, pts_us)], FrameSource(timed=item.pts_us is not None))
            case VideoBytes():
                yield from self._file(seq, "video", item)
            case AudioBytes():
                small = len(item.data) <= _CLIP_BYTES
                alone = small and self._spec.audio_rate and self._timeline.ear is None
                if alone and self._is_whole("audio", item):
                    yield from self._clip(seq, item)
                else:
                    yield from self._file(seq, "audio", item)
            case Embedding():
                yield self._timeline.rows(seq, embedding_segment(item, self._spec.rows))
            case Clip():
                yield from self._again(seq, item)
            case _:
                raise InputError(f"expected media, got {type(item).__name__}")

    def fork(self) -> Intake:
        """The same intake once more; files that are being read stay with this one."""
        twin = copy.copy(self)
        twin._timeline = copy.deepcopy(self._timeline)
        twin._containers = {}
        return twin

    def fresh(self) -> Intake:
        """An intake for the same request that has taken nothing. Media without a time goes after what this one had."""
        twin = Intake(self._spec, self._request, self._decoders, self._hearing, self._begun())
        twin._frame_end_us, twin._sound_end_us = self._frame_end_us, self._sound_end_us
        return twin

    def flush(self, seq: int, ends: bool = False) -> Output:
        """What is held goes in for the words that flush it. `ends`: no more media will come."""
        self._timeline.demand = Demand.ASKED
        if not ends or self._timeline.ear is None:
            return self._timeline.flush(seq)
        return _joined(self._timeline.unheard(seq), self._timeline.flush(seq))

    def listen(self, seq: int, turns: TurnDetection | None) -> Output:
        """Listen for speech in this way from here on, or not any more. Then what has been said goes in."""
        line = self._timeline
        self._request = msgspec.structs.replace(self._request, turn_detection=turns)
        if turns is None:
            output = line.unheard(seq)
            self._turns, line.ear = self._begun(), None
            return output
        if line.ear is None:
            line.ear = self._ear(turns)
        else:
            line.ear.change(turns, find(turns.detector), find_ends(turns, self._hearing.turn_model))
        return Output([], [], line.held)

    def _ear(self, turns: TurnDetection) -> Ear:
        ends = find_ends(turns, self._hearing.turn_model)
        found = find(turns.detector)
        return Ear(turns, found, ends, self._spec.audio_rate, StreamResampler, self._live, self._turns)

    def _begun(self) -> int:
        """How many turns of the stream have begun: they are counted on, whoever listens."""
        return self._turns if self._timeline.ear is None else self._timeline.ear.turn

    def close(self) -> None:
        for container, _ in self._containers.values():
            container.close()
        self._containers.clear()

    def _again(self, seq: int, clip: Clip) -> Generator[Output, None, None]:
        """A clip of its own, on a timeline of its own, after all that waits. What cannot be decoded is told of as
        damaged; MediaError or another where that is all of it."""
        held = self._timeline.flush(seq)
        yield held
        frames = sum(isinstance(item, VideoFrame) for item in clip.items)
        timeline = Timeline(self._sized, video_fps=clip.fps, expected_frames=frames or None, resampler=StreamResampler)
        first, error, good = len(held.pieces), None, False
        for item in clip.items:
            assert item.pts_us is not None
            try:
                output = timeline.feed(seq, [self._decoded(item, item.pts_us)])
                good = True
            except PenstockError as bad:
                error = error or bad
                modality = "video" if isinstance(item, VideoFrame) else "audio"
                output = Output([], [Dropped(seq, modality, 1, item.pts_us, item.pts_us, "damaged")], held.held)
            yield _of_clip(output, clip.fps, first, held)
        if error is not None and not good:
            raise error
        yield _of_clip(timeline.flush(seq), clip.fps, first, held)

    def _decoded(self, item: VideoFrame | AudioChunk, pts_us: int) -> Frame:
        if isinstance(item, VideoFrame):
            return Pixels(self._frame(item), pts_us)
        return decode_pcm(item.data, item.encoding, item.channels, item.rate, pts_us, self._decoders.limits)

    def _is_whole(self, kind: str, item: VideoBytes | AudioBytes) -> bool:
        return item.final and kind not in self._containers

    def _file(self, seq: int, kind: str, item: VideoBytes | AudioBytes) -> Generator[Output, None, None]:
        """The next bytes of a file. A whole one comes after all that waits; after its end nothing of it waits."""
        if self._is_whole(kind, item):
            yield self._timeline.flush(seq)
        if kind not in self._containers:
            self._files += 1
            container = self._decoders.container(kind, self._start_us(kind, item))
            self._containers[kind] = (container, FrameSource(f"{kind} {self._files}"))
        container, source = self._containers[kind]
        data = memoryview(item.data)
        try:
            for start in range(0, len(data), _PIECE_BYTES):
                yield from self._read(seq, container, data[start : start + _PIECE_BYTES], source, final=False)
            if item.final:
                yield from self._read(seq, container, b"", source, final=True)
        except MediaError:
            self._containers.pop(kind, None)
            container.close()
            raise
        finally:
            if item.final and self._containers.pop(kind, None):
                container.close()
        if item.final:
            yield self._timeline.flush(seq)

    def _start_us(self, kind: str, item: VideoBytes | AudioBytes) -> int:
        """Where a file begins that does not say so: after what came before it."""
        if item.pts_us is not None:
            return item.pts_us
        return max(self._sound_end_us, self._frame_end_us) if kind == "video" else self._sound_end_us

    def _feed(self, seq: int, frames: list[Frame], source: FrameSource) -> Output:
        for frame in frames:
            if isinstance(frame, Pixels):
                self._frame_end_us = frame.pts_us + self._frame_us
            else:
                self._sound_end_us = frame.pts_us + frame.samples.shape[1] * 1_000_000 // frame.rate
        return self._timeline.feed(seq, frames, source)

    def _read(
        self, seq: int, container: Reading, data: Buffer, source: FrameSource, final: bool
    ) -> Generator[Output, None, None]:
        for frames in container.read(data, final):
            output = self._feed(seq, self._wanted(frames), source)
            yield self._with_lost(seq, output, container.lost)
            container.lost.clear()

    def _with_lost(self, seq: int, output: Output, lost: list[Lost]) -> Output:
        """The output with notices of what was lost to damage, of what the model takes."""
        rate = self._spec.audio_rate
        notices = [
            Dropped(
                seq,
                loss.modality,
                loss.count if loss.modality == "video" else (loss.stop_us - loss.start_us) * rate // 1_000_000,
                loss.start_us,
                loss.stop_us,
                "damaged",
            )
            for loss in lost
            if rate or loss.modality == "video"
        ]
        return msgspec.structs.replace(output, dropped=[*output.dropped, *notices]) if notices else output

    def _clip(self, seq: int, item: AudioBytes) -> Generator[Output, None, None]:
        """A whole file of sound. Where it breaks off with an error, what was decoded before goes on first."""
        sounds: list[Samples] = []
        size, most = 0, self._decoders.limits.max_decoded_bytes
        lost: list[Lost] = []
        broken: MediaError | None = None
        with closing(file_frames(item, "audio", self._decoders, lost, self._start_us("audio", item))) as frames:
            try:
                for frame in frames:
                    if isinstance(frame, Samples):
                        sounds.append(frame)
                        size += frame.samples.nbytes
                    if size > most:
                        raise LimitError(
                            f"audio: expected a file of at most {most} bytes of samples, got more; send it in pieces"
                        )
            except MediaError as error:
                if size > most:
                    raise
                broken = error
        if sounds or broken is None:
            yield self._levelled(self._with_lost(seq, self._timeline.clip(seq, sounds), lost))
        if sounds:
            self._sound_end_us = sounds[-1].pts_us + sounds[-1].samples.shape[1] * 1_000_000 // sounds[-1].rate
        if broken is not None:
            raise broken

    def _levelled(self, output: Output) -> Output:
        """Whole sound: its log-mel hangs on its own loudest frame, as in the model's processor."""
        if any(isinstance(segment, UnitSegment) for segment in output.segments):
            return output
        blocks = [segment for segment in output.segments if isinstance(segment, AudioSegment)]
        run = max((block.run for block in blocks), default=0)
        mine = [block for block in blocks if block.run == run]
        if not mine:
            return output
        spec = self._spec
        mel = log_mel(spec.mel_bins, spec.audio_rate, 2 * spec.lead_samples, spec.hop_samples)
        powers = {id(b): mel.power(torch.from_numpy(b.samples), b.lead, b.frames).numpy() for b in mine}
        loudest = max(float(power.max()) for power in powers.values())
        pieces = [
            msgspec.structs.replace(piece, loudest=loudest, power=powers[id(piece)])
            if isinstance(piece, AudioSegment) and id(piece) in powers
            else piece
            for piece in output.pieces
        ]
        return msgspec.structs.replace(output, pieces=pieces)

    def _wanted(self, frames: list[Frame]) -> list[Frame]:
        """The sound of a video goes only to a model that hears."""
        return [frame for frame in frames if self._spec.audio_rate or isinstance(frame, Pixels)]

    def _picture(self, data: Buffer | np.ndarray) -> np.ndarray:
        if isinstance(data, np.ndarray):
            check_pixels(data, self._decoders.limits)
            return data
        return self._decoders.picture(data)

    def _frame(self, item: VideoFrame) -> np.ndarray:
        if isinstance(item.data, np.ndarray) or item.encoding == "picture":
            return self._picture(item.data)
        return raw_picture(item.data, item.encoding, item.width, item.height, self._decoders.limits)


def _joined(first: Output, second: Output) -> Output:
    pieces, dropped = [*first.pieces, *second.pieces], [*first.dropped, *second.dropped]
    return Output(pieces, dropped, second.held, [*first.speech, *second.speech])


def _of_clip(output: Output, fps: float, first: int, held: Output) -> Output:
    """The output of a clip's timeline as the stream's: its segments are counted from `first` on."""
    pieces = [
        msgspec.structs.replace(segment, clip_fps=fps, index=first + segment.index) for segment in output.segments
    ]
    return msgspec.structs.replace(output, pieces=pieces, held=held.held)
