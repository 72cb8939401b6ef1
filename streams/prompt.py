"""What a whole prompt is given from: words and media as a client hands them in, told apart by kind. In: a `Request`'s
messages, prompt or ids and its media. Out: `Content`, plain data; nothing is decoded, nothing is fetched.

It knows content parts of Hugging Face and of OpenAI, files and data: URLs. It knows no models and no placeholders.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..codecs.errors import InputError, LimitError
from ..codecs.limits import MediaLimits
from ..codecs.pcm import check_samples
from .item import AudioBytes, AudioChunk, Image, VideoBytes

KINDS = ("image", "video", "audio")
_OPENAI = {"image_url": "image", "video_url": "video", "audio_url": "audio", "input_audio": "audio"}
_TAKEN = "a PIL image, an array, bytes, a path, a data: URL or an item"


class Media(msgspec.Struct, frozen=True, eq=False, tag="decoded"):
    """Decoded media. An "image" is `(h, w, 3)` uint8, a "video" `(n, h, w, 3)` uint8 at the rate the model gets, an
    "audio" `(n,)` float32 at `rate` Hz (0: the model's own rate).
    """

    kind: str
    data: np.ndarray
    rate: int = 0


Piece = Media | Image | VideoBytes | AudioBytes | AudioChunk


class Content(msgspec.Struct, frozen=True, eq=False, tag="content"):
    """What a reply starts from: one of `messages` (parts of media hold no value), `text` and `ids`, and the media in
    order. The other fields are those of the request.
    """

    media: list[Piece]
    messages: list[dict[str, Any]] | None = None
    text: str | None = None
    ids: list[int] | None = None
    system: str | None = None
    video_fps: float | None = None
    audio_in_video: bool = False
    options: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """What the client calls it."""
        return "messages" if self.messages is not None else "prompt" if self.text is not None else "prompt_ids"

    def by_kind(self) -> dict[str, list[Media]]:
        """The media by kind, each in order; all are decoded."""
        found: dict[str, list[Media]] = {kind: [] for kind in KINDS}
        for piece in self.media:
            assert isinstance(piece, Media)
            found[piece.kind].append(piece)
        return found


def kind_of(piece: Piece) -> str:
    """The kind of a piece, which it has before it is decoded."""
    match piece:
        case Media():
            return piece.kind
        case Image():
            return "image"
        case VideoBytes():
            return "video"
        case _:
            return "audio"


def gather(request: Any, limits: MediaLimits) -> Content:
    """The content of a request that starts a reply. Reads files: it blocks.

    Raises InputError where messages are no conversation or a value is no media, LimitError for a file over the limits.
    """
    media: list[Piece] = []
    messages = None
    if request.messages is not None:
        if not isinstance(request.messages, list):
            raise _no_conversation(type(request.messages).__name__)
        messages = [_message(message, media, limits) for message in request.messages]
    else:
        media = [_entry(value, limits) for value in request.media]
    return Content(
        media,
        messages,
        request.prompt,
        None if request.prompt_ids is None else list(request.prompt_ids),
        request.system,
        request.video_fps,
        request.audio_in_video,
        dict(request.processor),
    )


def check_counts(content: Content, most: dict[str, int]) -> None:
    """Raise InputError where there is more media of a kind than `most` allows."""
    for kind, count in Counter(map(kind_of, content.media)).items():
        if kind in most and count > most[kind]:
            raise InputError(f"{content.name}: expected at most {_counted(most[kind], kind)}, got {count}")


def check_most(most: dict[str, int]) -> None:
    """Raise InputError where bounds by kind name no kind, or no number of things."""
    for kind, count in most.items():
        if kind not in KINDS:
            raise InputError(f"limits_per_request: expected {', '.join(KINDS)}, got {kind!r}")
        if not isinstance(count, int) or count < 0:
            raise InputError(f"limits_per_request: expected 0 or more for {kind}, got {count!r}")


def check_inline(messages: list[dict[str, Any]] | None, media: Sequence[Any]) -> None:
    """Raise InputError where media is not in the request itself: a client elsewhere names no files of this machine."""
    parts = [part for message in messages or () for part in _parts(message)]
    for part in (*parts, *media):
        if isinstance(part, dict) and part.get("type") == "text":
            continue
        raw = isinstance(part, bytes) or (isinstance(part, dict) and any(isinstance(v, bytes) for v in part.values()))
        value = _value(part)[1] if isinstance(part, dict) else part
        inline = isinstance(value, bytes) or (isinstance(value, str) and value.startswith("data:"))
        if raw or not inline:
            shown = repr(value[:40]) if isinstance(value, str) else type(value).__name__
            name = "media" if messages is None else "messages"
            raise InputError(f"{name}: expected media over the wire as a data: URL or base64, got {shown}")


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind}{'s' if count != 1 else ''}"


def _no_conversation(got: str) -> InputError:
    return InputError(f"messages: expected a list of {{'role': ..., 'content': text or a list of parts}}, got {got}")


def _parts(message: Any) -> list[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, list) else []


def _message(message: Any, media: list[Piece], limits: MediaLimits) -> dict[str, Any]:
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        raise _no_conversation(f"{type(message).__name__} {list(message) if isinstance(message, dict) else ''}".strip())
    content = message["content"]
    if isinstance(content, list | tuple):
        return {**message, "content": [_part(part, media, limits) for part in content]}
    if not isinstance(content, str):
        raise _no_conversation(f"content of type {type(content).__name__}")
    return message


def _part(part: Any, media: list[Piece], limits: MediaLimits) -> dict[str, Any]:
    """A part without its value, which goes to `media`."""
    if not isinstance(part, dict):
        raise _no_conversation(f"a part of type {type(part).__name__}")
    if part.get("type") == "text":
        return part
    media.append(_entry(part, limits))
    kind = kind_of(media[-1])
    return {"type": kind, kind: kind}


def _entry(value: Any, limits: MediaLimits) -> Piece:
    """A content part, or a value whose kind is told by itself."""
    if not isinstance(value, dict):
        return _piece(value, None, 0, limits)
    kind, found = _value(value)
    return _piece(found, kind, value.get("sampling_rate") or 0, limits)


def _value(part: dict[str, Any]) -> tuple[str, Any]:
    """Kind and value of a content part, Hugging Face's or OpenAI's."""
    name = part.get("type")
    kind = _OPENAI.get(str(name), name)
    if kind not in KINDS:
        raise InputError(f"content part: expected text, {', '.join((*KINDS, *_OPENAI))}, got {name!r}")
    for key in (name, "path", "url"):
        if key in part:
            found = part[key]
            break
    else:
        if "base64" not in part:
            raise InputError(f"content part {name!r}: expected its value under {name!r}, got {sorted(part)}")
        return kind, _base64(part["base64"], str(name))
    if isinstance(found, dict):
        if "data" in found:
            return kind, _base64(found["data"], str(name))
        found = found.get("url")
    return kind, found


def _base64(text: Any, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise InputError(f"{what}: expected base64, got {type(text).__name__}: {error}") from None


def _piece(value: Any, kind: str | None, rate: int, limits: MediaLimits) -> Piece:
    """`kind` None: the value tells it. `rate` of sound that does not have its own; 0: the model's."""
    from ..codecs.picture import pixels_of

    match value:
        case str() | Path():
            return _from_bytes(_read(value, limits), kind)
        case bytes() | bytearray() | memoryview():
            return _from_bytes(bytes(value), kind)
        case Image() | VideoBytes() | AudioBytes() | AudioChunk():
            return _from_item(value, kind)
        case np.ndarray():
            return _from_array(value, kind, rate)
        case (np.ndarray() as samples, int() as own):
            return _from_array(samples, kind or "audio", own)
        case [_, *_]:
            frames = [pixels_of(frame) if not isinstance(frame, np.ndarray) else frame for frame in value]
            pictures = [frame for frame in frames if frame is not None]
            if len(pictures) < len(frames) or len({picture.shape for picture in pictures}) > 1:
                raise InputError("video: expected pictures of one size, got others")
            return _from_array(np.stack(pictures), kind or "video", rate)
    pixels = pixels_of(value)
    if pixels is None:
        raise InputError(f"{kind or 'media'}: expected {_TAKEN}, got {type(value).__name__}")
    return _from_array(pixels, kind, rate)


def _read(name: str | Path, limits: MediaLimits) -> bytes:
    if isinstance(name, str):
        if name.startswith("data:"):
            head, comma, text = name.partition(",")
            if not comma or not head.endswith(";base64"):
                raise InputError(f"data: URL: expected 'data:TYPE;base64,...', got {name[:40]!r}")
            return _base64(text, "data: URL")
        if "://" in name:
            raise InputError(f"media: expected {_TAKEN}, got {name[:80]!r}: nothing is fetched")
    path = Path(name)
    try:
        size = path.stat().st_size
        if size > limits.max_stream_bytes:
            raise LimitError(f"{path}: expected at most {limits.max_stream_bytes} bytes, got {size}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"media: expected a file that can be read, got {str(name)[:80]!r}: {why}") from None


def _from_bytes(data: bytes, kind: str | None) -> Piece:
    from ..codecs.picture import is_file
    from ..codecs.sniff import SOUND, sniff

    if kind is None:
        kind = "image" if is_file(data) else "audio" if sniff(data[: 64 << 10]) in SOUND else "video"
    if kind == "image":
        return Image(data)
    return VideoBytes(data, final=True) if kind == "video" else AudioBytes(data, final=True)


def _from_item(item: Image | VideoBytes | AudioBytes | AudioChunk, kind: str | None) -> Piece:
    if kind is not None and kind != kind_of(item):
        raise InputError(f"{kind}: expected {_TAKEN}, got {type(item).__name__}")
    if isinstance(item, AudioChunk):
        return item if isinstance(item.data, bytes) else msgspec.structs.replace(item, data=_own(item.data))
    if isinstance(item.data, np.ndarray):
        return _from_array(item.data, "image", 0)
    return _from_bytes(bytes(item.data), kind_of(item))


def _own(data: Any) -> Any:
    return data.copy() if isinstance(data, np.ndarray) else bytes(data)


def _from_array(array: np.ndarray, kind: str | None, rate: int) -> Media:
    """An array as what its type and shape say it is, where `kind` does not."""
    if kind is None:
        kind = "audio" if array.dtype.kind == "f" else "video" if array.ndim == 4 else "image"
    if kind == "audio":
        if array.dtype.kind != "f" or array.ndim not in (1, 2) or not array.size:
            raise InputError(f"audio: expected (n,) or (channels, n) float32, got {array.shape} {array.dtype}")
        check_samples(array, rate, "audio")
        mono = array if array.ndim == 1 else array.mean(axis=0)
        return Media("audio", np.array(mono, dtype=np.float32), rate)
    sides = 4 if kind == "video" else 3
    if array.dtype != np.uint8 or array.ndim != sides or array.shape[-1] != 3 or not array.size:
        shape = "(n, h, w, 3)" if kind == "video" else "(h, w, 3)"
        raise InputError(f"{kind}: expected {shape} uint8, got {array.shape} {array.dtype}")
    return Media(kind, array.copy())
