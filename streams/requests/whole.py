"""Media of a whole prompt, decoded: files to pixels and samples, as one piece each. In: `Content` and decoders. Out:
the same content, all of whose media is `Media`. Synchronous; of models it knows the `MediaSpec` only.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import msgspec
import numpy as np

from ...codecs.decoders import Decoders
from ...codecs.frame import Frame, Lost, Samples
from ...codecs.limits import MediaLimits
from ...errors import DamagedError, InputError, LimitError, MediaError
from ..audio import SECOND_US, TOLERANCE_US, split
from ..item import AudioBytes, AudioChunk, Embedding, Image, VideoBytes
from ..rows import embedding_segment
from ..segment import MediaSpec
from ..video import LONGEST_GAP_US, Pick, Sampler
from .prompt import Content, Media, Piece

_PIECE_BYTES = 64 << 10


def decoded(content: Content, decoders: Decoders, spec: MediaSpec) -> Content:
    """The content with its media decoded.

    Frames of a video file are those that a stream takes, at `video_fps` or at the model's rate, with their own times.
    Where sound is inside video a video file brings its own, after its picture. Raises MediaError or InputError,
    LimitError where the media of the prompt together is more than one call of a decoder may give.
    """
    whole = msgspec.structs.replace(content, video_fps=content.video_fps or spec.video_fps)
    budget = _Budget(decoders.limits)
    media: list[Piece] = []
    for number, piece in enumerate(content.media):
        try:
            media += _decoded(piece, decoders, whole, spec, budget)
        except (MediaError, InputError) as error:
            if number < len(content.places):
                raise type(error)(f"{content.places[number]}: {error}") from error
            raise
    return msgspec.structs.replace(whole, media=media, places=[])


class _Budget:
    """Bytes of frames that may still be kept."""

    def __init__(self, limits: MediaLimits) -> None:
        self._limit = limits.max_decoded_bytes
        self._kept = 0

    def keep(self, size: int) -> None:
        self._kept += size
        if self._kept > self._limit:
            raise LimitError(
                f"media of a prompt: expected at most {self._limit} bytes of frames and samples, got more; "
                "append longer media to a stream"
            )


def _decoded(
    piece: Piece, decoders: Decoders, content: Content, spec: MediaSpec, budget: _Budget
) -> Sequence[Media | Embedding]:
    from ...codecs.pcm import decode_pcm
    from ...codecs.picture import check_pixels

    lost: list[Lost] = []
    match piece:
        case Media():
            budget.keep(piece.data.nbytes)
            if piece.kind != "audio":
                check_pixels(piece.data[0] if piece.kind == "video" else piece.data, decoders.limits)
            return [piece]
        case Embedding():
            return [_checked(piece, content, spec)]
        case Image():
            assert not isinstance(piece.data, np.ndarray)  # an array is `Media` already
            pixels = decoders.picture(piece.data)
            budget.keep(pixels.nbytes)
            return [Media("image", pixels)]
        case AudioChunk():
            samples = decode_pcm(piece.data, piece.encoding, piece.channels, piece.rate, 0, decoders.limits)
            return [_sound([samples], budget)]
        case AudioBytes():
            sounds = []
            for frame in file_frames(piece, "audio", decoders, lost):
                if isinstance(frame, Samples):
                    budget.keep(frame.samples.nbytes)
                    sounds.append(frame)
            _check_whole(lost, hears=True)
            return [_sound(sounds, budget)]
        case VideoBytes():
            assert content.video_fps is not None
            film = _Film(content.video_fps, spec.temporal_patch, budget)
            film.read(file_frames(piece, "video", decoders, lost), content.audio_in_video)
            _check_whole(lost, content.audio_in_video)
            return film.media(content.audio_in_video)


def _checked(piece: Embedding, content: Content, spec: MediaSpec) -> Embedding:
    """Rows that fit the model, and a prompt. InputError for others."""
    segment = embedding_segment(piece, spec.rows)
    if spec.rows.timed and piece.kind == "video":
        raise InputError(
            "embedding: expected no video in a prompt for this model, which is told times in words, got video; append "
            "it to a stream"
        )
    if content.audio_in_video and piece.kind in ("video", "audio"):
        raise InputError(f"embedding: expected no {piece.kind} with audio_in_video, whose units are one, got both")
    return msgspec.structs.replace(piece, data=segment.rows) if segment.deep is None else piece


def file_frames(
    piece: VideoBytes | AudioBytes, kind: str, decoders: Decoders, lost: list[Lost], pts_us: int = 0
) -> Generator[Frame, None, None]:
    """The frames of a whole file, whose first stands at `pts_us`. What damage costs is put into `lost`, at the end.

    Raises MediaError.
    """
    container = decoders.container(kind, pts_us)
    data = memoryview(piece.data)
    pieces = [data[start : start + _PIECE_BYTES] for start in range(0, len(data), _PIECE_BYTES)]
    try:
        for number, part in enumerate([*pieces, b""]):
            for frames in container.read(part, final=number == len(pieces)):
                yield from frames
        lost += container.lost
    finally:
        container.close()


def _check_whole(lost: list[Lost], hears: bool) -> None:
    """DamagedError where something of a prompt's file was lost that the model would take: nobody would be told."""
    for loss in lost:
        if hears or loss.modality == "video":
            raise DamagedError(
                f"{loss.modality}: expected a file without damage, got some at {loss.start_us / 1e6:g} s"
            )


class _Film:
    """The frames of one video as a stream takes them, and its sound."""

    def __init__(self, fps: float, patch: int, budget: _Budget) -> None:
        self._sampler = Sampler(fps)
        self._patch = patch
        self._budget = budget
        self._grid = 0
        self._pictures: list[np.ndarray] = []
        self._times_us: list[int] = []
        self._sounds: list[Samples] = []
        self._stop_us = 0

    def read(self, frames: Iterator[Frame], hears: bool) -> None:
        """Take all that the file has; `hears`: its sound too."""
        for frame in frames:
            if isinstance(frame, Samples):
                if hears:
                    self._budget.keep(frame.samples.nbytes)
                    self._sounds.append(frame)
            elif self._sampler.takes(frame):
                before_us = self._sampler.newest_us
                lasts_us = 0 if before_us is None else frame.pts_us - before_us
                self._stop_us = frame.pts_us + min(lasts_us, LONGEST_GAP_US)
                self._keep(self._sampler.feed(frame))
        self._keep(self._sampler.flush())

    def media(self, hears: bool) -> list[Media]:
        """The video, and its sound after it. InputError where there is none, or pictures of several sizes."""
        sizes = {pixels.shape[:2] for pixels in self._pictures}
        if len(sizes) != 1:
            raise InputError(f"video: expected pictures of one size, got {len(sizes)} sizes")
        if hears and not self._sounds:
            raise InputError("audio in video: expected a video file with sound, got one without")
        video = Media("video", np.stack(self._pictures), 0, tuple(self._times_us), self._stop_us)
        return [video, *([_sound(self._sounds, self._budget, self._times_us[0])] if hears else [])]

    def _keep(self, picks: list[Pick]) -> None:
        """Where the ticks start again the open patch is completed with its last frame, as in a stream."""
        for pick in picks:
            if pick.grid != self._grid:
                missing = -len(self._pictures) % self._patch
                self._pictures += self._pictures[-1:] * missing
                self._times_us += self._times_us[-1:] * missing
                self._grid = pick.grid
            self._budget.keep(pick.frame.pixels.nbytes)
            self._pictures.append(pick.frame.pixels)
            self._times_us.append(pick.frame.pts_us)


def _sound(sounds: list[Samples], budget: _Budget, zero_us: int | None = None) -> Media:
    """Sound in one piece. It begins at `zero_us`: silence fills up to the first sample, what lies before is cut off;
    None: at its first sample. Stamps count as in a stream: where one lies more than 100 ms after the samples before it
    silence fills the gap, where it lies so far before their end what would be heard twice is cut off.
    """
    rates = {samples.rate for samples in sounds}
    if len(rates) != 1:
        raise InputError(f"audio: expected samples at one rate, got {len(rates)} rates")
    rate = rates.pop()
    mono: list[np.ndarray] = []
    end_us, tolerance_us = zero_us, 0  # the first stamp is taken at its word
    count, from_us = 0, zero_us or 0
    for sound in sounds:
        if end_us is None:
            end_us = from_us = sound.pts_us
        if sound.pts_us > end_us + tolerance_us:
            missing = round((sound.pts_us - end_us) * rate / SECOND_US)
            budget.keep(missing * np.dtype(np.float32).itemsize)
            mono.append(np.zeros(missing, np.float32))
            count += missing
        elif sound.pts_us < end_us - tolerance_us:
            sound = split(sound, end_us)[1]
        mono.append(sound.samples.mean(axis=0, dtype=np.float32))
        count += len(mono[-1])
        end_us = from_us + count * SECOND_US // rate
        tolerance_us = TOLERANCE_US if count else 0
    if not count:
        raise InputError("audio in video: expected sound that lasts into the picture, got none behind the first frame")
    return Media("audio", np.concatenate(mono), rate)
