"""What a client appends to a stream. Knows neither decoders nor models.

An item holds what the client sent, not yet decoded: bytes as they came, or arrays. `Stream.append` copies what the
caller could still change. Bytes and arrays are checked when they are decoded, and what is wrong with them comes as an
`Error` event; docs/media.md says what is taken. These fields have one meaning in all items:

data: the media itself. `Bytes` are bytes, a bytearray or a memoryview; `Data` are these or a numpy array.
pts_us: its media time in microseconds on the stream's clock. The client chooses where the clock's zero is.
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
    """Words for the open user turn.

    text: the words, as Unicode text. Control tokens in them are plain words, unless `Request.control_tokens` is set.
    """

    text: str


class Image(msgspec.Struct, frozen=True, eq=False, tag="image"):
    """One still picture.

    data: a JPEG, PNG, WebP or GIF file as bytes, or an array `(h, w, 3)` uint8 RGB. Of a GIF the first frame is taken.
    """

    data: Data
    pts_us: int | None = None


class VideoFrame(msgspec.Struct, frozen=True, eq=False, tag="frame"):
    """One frame of a live video.

    data: an array `(h, w, 3)` uint8 RGB, or bytes in `encoding`.
    pts_us: `None`: the frame follows the frame before it at the rate that the model gets.
    encoding: how the bytes are written: "picture" (a JPEG, PNG, WebP or GIF file), or raw pixels as "rgb24", "yuv420p"
        or "nv12".
    width, height: the size in pixels; only raw pixels need it. Even numbers for "yuv420p" and "nv12".
    """

    data: Data
    pts_us: int | None = None
    encoding: str = "picture"
    width: int = 0
    height: int = 0


class VideoBytes(msgspec.Struct, frozen=True, eq=False, tag="video"):
    """The next bytes of an encoded video (WebM, MP4, MPEG-TS), cut anywhere, with its sound.

    data: bytes of the file, at least one unless `final`.
    final: these are the last bytes of the file. An MP4 with its index at the end is decoded when the index has come.
    pts_us: is added to the times of the container; the value of the file's first piece holds. `None`: the file begins
        after what came before it.
    """

    data: Bytes
    final: bool = False
    pts_us: int | None = None


class AudioChunk(msgspec.Struct, frozen=True, eq=False, tag="pcm"):
    """The next samples of a live sound.

    data: an array `(channels, n)` float32 between -1 and 1, or interleaved bytes in `encoding`.
    rate: samples a second, for each channel: 1,000 to 384,000. Penstock converts it to the model's rate.
    pts_us: the time of the first sample. `None`: it follows the samples before it without a gap.
    encoding: how the bytes are written: "s16le" (16-bit integers) or "f32le" (32-bit floats), low byte first.
    channels: how many channels the bytes have, 1 to 8. They are averaged.
    """

    data: Data
    rate: int
    pts_us: int | None = None
    encoding: str = "s16le"
    channels: int = 1


class AudioBytes(msgspec.Struct, frozen=True, eq=False, tag="audio"):
    """The next bytes of an encoded sound (WAV, Opus or Vorbis in WebM or Ogg, AAC, MP3, FLAC), cut anywhere.

    data: bytes of the file, at least one unless `final`.
    final: these are the last bytes of the file.
    pts_us: as for `VideoBytes`. `None`: the file begins after the sound before it.
    """

    data: Bytes
    final: bool = False
    pts_us: int | None = None


class Embedding(msgspec.Struct, frozen=True, eq=False, tag="embedding"):
    """Rows that an encoder and its projector made elsewhere, as the decoder takes them, or the embeddings of a prompt.

    data: `(n, hidden)` float32 or float16, or a safetensors file as bytes with that as `rows`. Models that add features
        after their first layers (DeepStack, Qwen3-VL) need the file, with these as `deep` `(layers, n, hidden)`.
    kind: what it stands for: "image", "video", "audio", or "text" for words.
    grid: temporal patches, height and width of an image or a video in merged patches; their product is n. Models with
        several axes of positions need it (the Qwen family), others take none.
    pts_us, stop_us: media time of the first and the last frame, or of the first sample and after the last. Models that
        are told the times of video in words need both.
    """

    data: Data
    kind: str = "image"
    grid: tuple[int, int, int] | None = None
    pts_us: int | None = None
    stop_us: int | None = None


Item = Text | Image | VideoFrame | VideoBytes | AudioChunk | AudioBytes | Embedding
MEDIA = (Image, VideoFrame, VideoBytes, AudioChunk, AudioBytes, Embedding)
