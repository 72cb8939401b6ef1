"""What a client appends to a stream. Knows neither decoders nor models.

An item holds what the client sent, not yet decoded: bytes as they came, or arrays. Media times are microseconds on the
stream's own media clock (`pts_us`); the clock's zero is the client's to choose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

Buffer = bytes | bytearray | memoryview
if TYPE_CHECKING:
    Data = Buffer | np.ndarray
    Bytes = Buffer
else:
    Data = Bytes = Any  # msgspec decodes no union of these; `actors/inputs.py` checks what a client hands in


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Words for the open user turn."""

    text: str


class Image(msgspec.Struct, frozen=True, eq=False, tag="image"):
    """One still picture: a JPEG, PNG, WebP or GIF file as bytes, or `(h, w, 3)` uint8 RGB."""

    data: Data
    pts_us: int | None = None


class VideoFrame(msgspec.Struct, frozen=True, eq=False, tag="frame"):
    """One frame of a live video.

    `data` is `(h, w, 3)` uint8 RGB, or bytes in `encoding`: "picture" (JPEG, PNG, WebP), "rgb24", "yuv420p" or
    "nv12"; the raw ones need `width` and `height`. Without `pts_us` it follows the frame before it at the rate the
    model gets.
    """

    data: Data
    pts_us: int | None = None
    encoding: str = "picture"
    width: int = 0
    height: int = 0


class VideoBytes(msgspec.Struct, frozen=True, eq=False, tag="video"):
    """The next bytes of an encoded video (WebM, MP4, MPEG-TS), cut anywhere; its sound comes along.

    `final` ends the file; an MP4 whose index stands at its end is decoded when that has come. `pts_us` is added to the
    container's own times (that of the file's first piece holds); None: the file begins behind what came before it.
    """

    data: Bytes
    final: bool = False
    pts_us: int | None = None


class AudioChunk(msgspec.Struct, frozen=True, eq=False, tag="pcm"):
    """The next samples of a live sound: `(channels, n)` float32, or bytes as "s16le" or "f32le", interleaved.

    Without `pts_us` it follows the samples before it without a gap.
    """

    data: Data
    rate: int
    pts_us: int | None = None
    encoding: str = "s16le"
    channels: int = 1


class AudioBytes(msgspec.Struct, frozen=True, eq=False, tag="audio"):
    """The next bytes of an encoded sound (WAV, Opus or Vorbis in WebM/Ogg, AAC, MP3, FLAC). `final` ends the file;
    `pts_us` as for `VideoBytes`, None: behind the sound before it."""

    data: Bytes
    final: bool = False
    pts_us: int | None = None


class Embedding(msgspec.Struct, frozen=True, eq=False, tag="embedding"):
    """The output of an encoder, `(n, hidden)`. Not supported yet."""

    data: np.ndarray
    pts_us: int | None = None


Item = Text | Image | VideoFrame | VideoBytes | AudioChunk | AudioBytes | Embedding
MEDIA = (Image, VideoFrame, VideoBytes, AudioChunk, AudioBytes)
