"""Media of a whole prompt, decoded: files to pixels and samples, as one piece each. In: `Content` and decoders. Out:
the same content, all of whose media is `Media`. Synchronous; it knows no models but the rate at which they take video.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import msgspec
import numpy as np

from ..codecs.decoders import Decoders
from ..codecs.errors import DamagedError, InputError, LimitError
from ..codecs.frame import Frame, Lost, Samples
from ..codecs.limits import MediaLimits
from .item import AudioBytes, AudioChunk, Image, VideoBytes
from .prompt import Content, Media, Piece
from .segment import MediaSpec
from .video import Sampler

_PIECE_BYTES = 64 << 10


def decoded(content: Content, decoders: Decoders, spec: MediaSpec) -> Content:
    """The content with its media decoded.

    Frames of a video file are taken at `video_fps`, or at the model's rate. Where sound is inside video a video file
    brings its own, behind its picture. Raises MediaError or InputError, LimitError where the frames of all videos
    together are more than one call of a decoder may give.
    """
    fps = content.video_fps or spec.video_fps
    budget = _Budget(decoders.limits)
    media = [part for piece in content.media for part in _decoded(piece, decoders, fps, content.audio_in_video, budget)]
    return msgspec.structs.replace(content, media=media)


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


def _decoded(piece: Piece, decoders: Decoders, fps: float, sound_inside: bool, budget: _Budget) -> list[Media]:
    from ..codecs.pcm import decode_pcm
    from ..codecs.picture import check_pixels

    match piece:
        case Media():
            budget.keep(piece.data.nbytes)
            if piece.kind != "audio":
                check_pixels(piece.data[0] if piece.kind == "video" else piece.data, decoders.limits)
            return [piece]
        case Image():
            assert not isinstance(piece.data, np.ndarray)  # an array is `Media` already
            return [Media("image", decoders.picture(piece.data))]
        case AudioChunk():
            samples = decode_pcm(piece.data, piece.encoding, piece.channels, piece.rate, 0, decoders.limits)
            return [_sound([samples])]
        case AudioBytes():
            sounds = []
            for frame in file_frames(piece, "audio", decoders):
                if isinstance(frame, Samples):
                    budget.keep(frame.samples.nbytes)
                    sounds.append(frame)
            return [_sound(sounds)]
        case VideoBytes():
            return _video(file_frames(piece, "video", decoders), fps, sound_inside, budget)


def file_frames(
    piece: VideoBytes | AudioBytes, kind: str, decoders: Decoders, pts_us: int = 0, lost: list[Lost] | None = None
) -> Generator[Frame, None, None]:
    """The frames of a whole file, whose first stands at `pts_us`.

    What damage costs is put into `lost`; None: it is an error. Raises MediaError.
    """
    container = decoders.container(kind, pts_us)
    data = memoryview(piece.data)
    pieces = [data[start : start + _PIECE_BYTES] for start in range(0, len(data), _PIECE_BYTES)]
    try:
        for number, part in enumerate([*pieces, b""]):
            for frames in container.read(part, final=number == len(pieces)):
                yield from frames
                if container.lost and lost is None:
                    raise DamagedError(_damage(container.lost[0]))
        if lost is not None:
            lost += container.lost
    finally:
        container.close()


def _damage(lost: Lost) -> str:
    return f"{lost.modality}: expected a file without damage, got some at {lost.start_us / 1e6:g} s"


def _video(frames: Iterator[Frame], fps: float, sound_inside: bool, budget: _Budget) -> list[Media]:
    sampler, taken, sounds = Sampler(fps), [], []
    for frame in frames:
        if isinstance(frame, Samples):
            if sound_inside:
                budget.keep(frame.samples.nbytes)
                sounds.append(frame)
        elif sampler.takes(frame):
            taken += _kept(sampler.feed(frame), budget)
    taken += _kept(sampler.flush(), budget)
    sizes = {pixels.shape[:2] for pixels in taken}
    if len(sizes) != 1:
        raise InputError(f"video: expected pictures of one size, got {len(sizes)} sizes")
    if sound_inside and not sounds:
        raise InputError("audio in video: expected a video file with sound, got one without")
    return [Media("video", np.stack(taken)), *([_sound(sounds)] if sound_inside else [])]


def _kept(picks: list, budget: _Budget) -> list[np.ndarray]:
    pixels = [pick.frame.pixels for pick in picks]
    budget.keep(sum(frame.nbytes for frame in pixels))
    return pixels


def _sound(sounds: list[Samples]) -> Media:
    rates = {samples.rate for samples in sounds}
    if len(rates) != 1:
        raise InputError(f"audio: expected samples at one rate, got {len(rates)} rates")
    mono = [samples.samples.mean(axis=0, dtype=np.float32) for samples in sounds]
    return Media("audio", np.concatenate(mono), rates.pop())
