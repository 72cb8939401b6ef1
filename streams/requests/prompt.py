"""What a whole prompt is given from: words and media as a client hands them in, told apart by kind. In: a `Request`'s
messages, prompt or ids and its media. Out: `Content`, plain data; nothing is decoded, nothing is fetched.

Conversations are checked in messages.py, data: URLs are read in data_url.py. It knows no models and no placeholders.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...codecs.limits import MediaLimits
from ...codecs.pcm import check_samples
from ...errors import InputError, LimitError
from ..item import MEDIA, AudioBytes, AudioChunk, Embedding, Image, VideoBytes
from .data_url import from_base64, from_data_url, is_data_url
from .messages import KINDS, TAKEN, Value, check_messages, described, parts, value_of
from .raw_rows import embedding_of


class Media(msgspec.Struct, frozen=True, eq=False, tag="decoded"):
    """Decoded media. An "image" is `(h, w, 3)` uint8, a "video" `(n, h, w, 3)` uint8, an "audio" `(n,)` float32 at
    `rate` Hz (0: the model's own rate).

    times_us: when each frame of a video was taken, the first at 0 or later; empty: frames come at the rate of the
    prompt, the first at 0. stop_us: when such a video ends; read only where there are times.
    """

    kind: str
    data: np.ndarray
    rate: int = 0
    times_us: tuple[int, ...] = ()
    stop_us: int = 0


# Among the ids of a prompt it stands for rows that were made elsewhere and stand for words.
MADE_ELSEWHERE = -1


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Rows that were made elsewhere, of a prompt: `at` says of how many pieces of their kind before them, with those of
    media. `sign` stands for them in messages, where they stand for words."""

    kind: str
    at: int
    sign: str


Piece = Media | Image | VideoBytes | AudioBytes | AudioChunk | Embedding


class Content(msgspec.Struct, frozen=True, eq=False, tag="content"):
    """What a reply starts from: one of `messages` (parts of media hold no value), `text` and `ids`, and the media in
    order. The other fields are those of the request, but `video_fps` of decoded content is never None: where the
    request has none it is the model's own rate. `places`: where in the request each piece of media stood, for errors.
    `ready`: the rows made elsewhere that are no longer among the media (`set_apart`).
    """

    media: list[Piece]
    messages: list[dict[str, Any]] | None = None
    text: str | None = None
    ids: list[int] | None = None
    system: str | None = None
    video_fps: float | None = None
    audio_in_video: bool = False
    options: dict[str, Any] = {}
    control_tokens: bool = False
    tools: list[dict[str, Any]] = []
    places: list[str] = []
    ready: list[Ready] = []

    @property
    def name(self) -> str:
        """What the client calls it."""
        return "messages" if self.messages is not None else "prompt" if self.text is not None else "prompt_ids"

    def by_kind(self) -> dict[str, list[Media]]:
        """The media by kind, each in order, without rows that were made elsewhere; all are decoded."""
        found: dict[str, list[Media]] = {kind: [] for kind in KINDS}
        for piece in self.media:
            if isinstance(piece, Embedding):
                continue
            assert isinstance(piece, Media)
            found[piece.kind].append(piece)
        return found


def kind_of(piece: Piece) -> str:
    """The kind of a piece, which it has before it is decoded."""
    match piece:
        case Media():
            return piece.kind
        case Embedding():
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
        check_messages(request.messages)
        found = {place: _placed(place, part, media, limits) for place, part in parts(request.messages)}
        rest = iter(found.values())
        messages = [
            message
            if isinstance(message["content"], str)
            else {**message, "content": [next(rest) for _ in message["content"]]}
            for message in request.messages
        ]
    else:
        media = [_entry(f"media[{number}]", value, limits) for number, value in enumerate(request.media)]
    return Content(
        media,
        messages,
        request.prompt,
        None if request.prompt_ids is None else list(request.prompt_ids),
        request.system,
        request.video_fps,
        request.audio_in_video,
        dict(request.processor),
        request.control_tokens,
        request.tools,
        [value_of(place, part).place for place, part in parts(request.messages or []) if part["type"] != "text"]
        or [f"media[{number}]" for number in range(len(media))],
    )


def set_apart(content: Content) -> tuple[Content, list[Embedding]]:
    """The content without the rows that were made elsewhere, of which it keeps the places; and these rows."""
    rows = [piece for piece in content.media if isinstance(piece, Embedding)]
    if not rows:
        return content, []
    seen: Counter[str] = Counter()
    ready, secret = [], secrets.token_hex(10)
    for piece in content.media:
        kind = kind_of(piece)
        if isinstance(piece, Embedding):
            ready.append(Ready(kind, seen[kind], f"\ue000{secret}n{len(ready)}\ue001"))
        seen[kind] += 1
    signs = iter([one.sign for one in ready if one.kind == "text"])
    messages = content.messages and [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [_signed(part, signs) for part in message["content"]]}
        for message in content.messages
    ]
    media: list[Piece] = [piece for piece in content.media if not isinstance(piece, Embedding)]
    return msgspec.structs.replace(content, media=media, messages=messages, ready=ready), rows


def _signed(part: dict[str, Any], signs: Iterator[str]) -> dict[str, Any]:
    return {"type": "text", "text": next(signs)} if part["type"] == "embedding" else part


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
    """Raise InputError where media is not in the request itself: a client elsewhere names no files of this machine.
    `messages` have been checked."""
    entries = [(f"media[{number}]", value) for number, value in enumerate(media)]
    for place, part in (*parts(messages or []), *entries):
        if isinstance(part, dict) and part.get("type") == "text":
            continue
        at, found, inline = place, part, False
        if isinstance(part, dict):
            value = value_of(place, part)
            at, found, inline = value.place, value.found, value.base64
        inline |= isinstance(found, MEDIA)  # a door has put it there
        if not inline and not (isinstance(found, str) and is_data_url(found)):
            raise InputError(f"{at}: expected media over the wire as a data: URL or base64, got {described(found)}")


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind}{'s' if count != 1 else ''}"


def _placed(place: str, part: dict[str, Any], media: list[Piece], limits: MediaLimits) -> dict[str, Any]:
    """A part without its value, which goes to `media`."""
    if part["type"] == "text":
        return part
    media.append(_entry(place, part, limits))
    kind = kind_of(media[-1])
    return {"type": kind, kind: kind} if kind in KINDS else {"type": "embedding", "embedding": kind}


def _entry(place: str, value: Any, limits: MediaLimits) -> Piece:
    """A content part, or a value whose kind shows by itself."""
    if isinstance(value, Embedding):
        return msgspec.structs.replace(value, data=_own(value.data))
    if not isinstance(value, dict):
        with _at(place):
            return _piece(value, None, 0, limits)
    part = value_of(place, value)
    with _at(part.place):
        if part.embedded is not None:
            return embedding_of(_rows_given(part, limits), part.kind, part.embedded)
        found = from_base64(part.found, "text") if part.base64 else part.found
        return _piece(found, part.kind, part.rate, limits)


def _rows_given(part: Value, limits: MediaLimits) -> Any:
    """What a part of rows holds, in bytes where it was text."""
    if part.base64 and not is_data_url(part.found):
        return from_base64(part.found, "text")
    return _read(part.found, limits) if isinstance(part.found, str | Path) else part.found


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    """Errors say at which place they arose."""
    try:
        yield
    except (InputError, LimitError) as error:
        raise type(error)(f"{place}: {error}") from None


def _piece(value: Any, kind: str | None, rate: int, limits: MediaLimits) -> Piece:
    """`kind` None: the value tells it. `rate` of sound that does not have its own; 0: the model's."""
    from ...codecs.picture import pixels_of

    match value:
        case str() | Path():
            return _from_bytes(_read(value, limits), kind)
        case bytes() | bytearray() | memoryview():
            return _from_bytes(bytes(value), kind)
        case Image() | VideoBytes() | AudioBytes() | AudioChunk():
            return _from_item(value, kind)
        case np.ndarray():
            if rate:
                limits.check_sound(rate, 1, "audio")
            return _from_array(value, kind, rate)
        case (np.ndarray() as samples, int() as own):
            limits.check_sound(own, 1, "audio")
            return _from_array(samples, kind or "audio", own)
        case [_, *_]:
            return _from_array(_stacked(value, kind or "video"), kind or "video", rate)
    pixels = pixels_of(value)
    if pixels is None:
        raise InputError(f"{kind or 'media'}: expected {TAKEN}, got {described(value)}")
    return _from_array(pixels, kind, rate)


def _stacked(values: Sequence[Any], kind: str) -> np.ndarray:
    """Pictures of one size as one array."""
    from ...codecs.picture import pixels_of

    pictures = []
    for value in values:
        pixels = value if isinstance(value, np.ndarray) else pixels_of(value)
        if pixels is None:
            raise InputError(f"{kind}: expected {TAKEN}, or a list of pictures, got {described(value)} in a list")
        pictures.append(pixels)
    if len({pixels.shape for pixels in pictures}) > 1:
        raise InputError(f"{kind}: expected pictures of one size, got others")
    return np.stack(pictures)


def _read(name: str | Path, limits: MediaLimits) -> bytes:
    if isinstance(name, str):
        if is_data_url(name):
            return from_data_url(name)
        if "://" in name:
            raise InputError(f"media: expected {TAKEN}, got {name[:80]!r}: nothing is fetched")
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
    from ...codecs.picture import is_file
    from ...codecs.sniff import SOUND, sniff

    if not data:
        raise InputError(f"{kind or 'media'}: expected at least 1 byte, got 0")
    if kind is None:
        kind = "image" if is_file(data) else "audio" if sniff(data[: 64 << 10]) in SOUND else "video"
    if kind == "image":
        return Image(data)
    return VideoBytes(data, final=True) if kind == "video" else AudioBytes(data, final=True)


def _from_item(item: Image | VideoBytes | AudioBytes | AudioChunk, kind: str | None) -> Piece:
    if kind is not None and kind != kind_of(item):
        raise InputError(f"{kind}: expected {TAKEN}, got {type(item).__name__}")
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
