"""What each message of the wire `/v1/stream` about a stream has, and headers of its binary messages. Plain data."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Ref = Annotated[str, msgspec.Meta(max_length=128)]
# Times beyond 2**53 us (285 years) are not exact in every JSON reader.
TimeUs = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
# No path, and nothing that a system hides.
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
Side = Annotated[int, msgspec.Meta(ge=0, le=2**16)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class StreamMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message about one stream."""

    stream: Name
    ref: Ref | None = None


class ImageHeader(StreamMessage, frozen=True, kw_only=True, tag="image"):
    """Header of one still picture, a file."""

    pts_us: TimeUs | None = None


class FrameHeader(StreamMessage, frozen=True, kw_only=True, tag="frame"):
    """Header of one frame of a live video; raw encodings need `width` and `height`."""

    pts_us: TimeUs | None = None
    encoding: str = "picture"
    width: Side = 0
    height: Side = 0


class VideoHeader(StreamMessage, frozen=True, kw_only=True, tag="video"):
    """Header of the next bytes of an encoded video."""

    final: bool = False
    pts_us: TimeUs | None = None


class PcmHeader(StreamMessage, frozen=True, kw_only=True, tag="pcm"):
    """Header of the next samples of a live sound."""

    rate: Count
    pts_us: TimeUs | None = None
    channels: Count = 1
    encoding: str = "s16le"


class AudioHeader(StreamMessage, frozen=True, kw_only=True, tag="audio"):
    """Header of the next bytes of an encoded sound."""

    final: bool = False
    pts_us: TimeUs | None = None


class EmbeddingHeader(StreamMessage, frozen=True, kw_only=True, tag="embedding"):
    """Header of rows that were made elsewhere: raw in `encoding`, low byte first, or a safetensors file with `rows`
    and, for models that need them, `deep`. `width` belongs to raw rows alone. The rest is as in `Embedding`.
    """

    kind: Literal["image", "video", "audio", "text"] = "image"
    encoding: Literal["safetensors", "f32le", "f16le"] = "safetensors"
    width: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    grid: tuple[Count, Count, Count] | None = None
    pts_us: TimeUs | None = None
    stop_us: TimeUs | None = None


Header = ImageHeader | FrameHeader | VideoHeader | PcmHeader | AudioHeader | EmbeddingHeader
