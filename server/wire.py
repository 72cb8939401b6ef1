"""The wire of `/v1/stream`, version 1: messages of a client to typed commands, and answers and events to JSON.

In come text frames (JSON) and binary frames (`u16 little-endian header length | JSON header | payload`); out go
`Command`s and items whose data is a `memoryview` into the received message. Knows neither sockets nor the engine.
"""

from __future__ import annotations

import re
import struct
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from ..errors import InputError
from ..streams import item as items
from ..streams.event import Event
from ..streams.requests.prompt import check_inline
from ..streams.requests.request import Request, SamplingParams
from ..streams.requests.turns import TurnDetection
from .errors import MessageError
from .wire_headers import (
    AudioHeader,
    Count,
    EmbeddingHeader,
    FileName,
    FrameHeader,
    Header,
    ImageHeader,
    Name,
    PcmHeader,
    Ref,
    StreamMessage,
    TimeUs,
    VideoHeader,
)
from .wire_keep import Keep, KeptMessage, Resume, ResumedMessage

VERSION = 1
SUBPROTOCOL = "penstock.v1"
KEY_SUBPROTOCOL = "penstock.key."


# ---- What a client sends -------------------------------------------------------------------------------------------
class Params(SamplingParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SamplingParams as they come over the wire: a field that is not known is an error."""


class OpenMessage(Request, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="open"):
    """Open a stream under a name of the client's choice; beside it all fields of `Request`."""

    stream: Name
    ref: Ref | None = None
    params: Params = Params()

    def request(self) -> Request:
        """The `Request` in this message."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in Request.__struct_fields__}
        fields["params"] = plain_params(self.params)
        return Request(**fields)


class TextMessage(StreamMessage, frozen=True, kw_only=True, tag="text"):
    """Words for the open user turn."""

    text: str


class Ask(StreamMessage, frozen=True, kw_only=True, tag="ask"):
    """Ask for a reply. Always answered with `accepted`, which holds the reply's id. `hold`, `ignore_failed` and
    `lookback` as in `Stream.ask`."""

    question: str = ""
    params: Params | None = None
    hold: bool | None = None
    ignore_failed: bool = False
    lookback: float | None = None
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=2**31)] | None = None


class InterruptMessage(StreamMessage, frozen=True, kw_only=True, tag="interrupt"):
    """Cut the running reply after token `at`; None: after the last token that was sent."""

    at: Count | None = None


class ListenMessage(StreamMessage, frozen=True, kw_only=True, tag="listen"):
    """Listen for speech in this way from here on, as `turn_detection` of `open` has it; null: no longer. Answered with
    `accepted`."""

    turn_detection: TurnDetection | None


class End(StreamMessage, frozen=True, kw_only=True, tag="end"):
    """No more media will come."""


class ForkMessage(StreamMessage, frozen=True, kw_only=True, tag="fork"):
    """Open the stream `as` as a copy of this one; with `again`, `back_to` or `back_to_us` as `Stream.fork` has them."""

    as_: Name = msgspec.field(name="as")
    again: Params | None = None
    back_to: Count | None = None
    back_to_us: TimeUs | None = None


class SnapshotMessage(StreamMessage, frozen=True, kw_only=True, tag="snapshot"):
    """Write the stream to the server's file of this name. Answered with `accepted`."""

    name: FileName


class RestoreMessage(StreamMessage, frozen=True, kw_only=True, tag="restore"):
    """Open a stream that goes on as the server's file of this name has it. Answered with `opened`."""

    name: FileName


class CloseMessage(StreamMessage, frozen=True, kw_only=True, tag="close"):
    """End the stream at once."""


class Ping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ping"):
    """Answered with `pong`."""

    ref: Ref | None = None


class Input(msgspec.Struct, frozen=True, eq=False):
    """An item for a stream; `bytes` is the size of the message it came in, which its data keeps alive."""

    stream: str
    ref: str | None
    item: items.Item
    bytes: int


_OfStream = Ask | InterruptMessage | ListenMessage | End | ForkMessage | SnapshotMessage | RestoreMessage | CloseMessage
Command = OpenMessage | _OfStream | Ping | Keep | Resume | Input


# ---- What the server answers, beside the events of `streams.event` ---------------------------------------------------
class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """The first message of a connection: what runs here and what a client may do."""

    version: int
    model: str
    family: str
    modalities: tuple[str, ...]
    formats: tuple[str, ...]
    live_trained: bool
    limits: dict[str, float]


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """A stream is open: its format, why that was chosen, and whether the model claims training for it."""

    stream: str
    id: int
    format: str
    why: str
    trained: bool
    ref: str | None = None


class Forked(msgspec.Struct, frozen=True, kw_only=True, tag="forked"):
    """The stream `stream` is open as a copy of `source`."""

    stream: str
    source: str
    id: int
    format: str
    why: str
    trained: bool
    ref: str | None = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="accepted"):
    """A message was taken. `seq` numbers an input of its stream; `reply` is the reply that an `ask` will get."""

    stream: str
    seq: int | None = None
    reply: int | None = None
    ref: str | None = None


class WireError(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """Something was refused or failed.

    `stream` None: it concerns the connection. `path` is the place in a message that was wrong. `number` is 0 in an
    answer and counts in a stream's own event.
    """

    stream: str | None
    code: str
    message: str
    path: str | None = None
    seq: int | None = None
    fatal: bool = False
    number: int = 0
    ref: str | None = None


class Pong(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="pong"):
    """The answer to `ping`."""

    ref: str | None = None


Answer = Welcome | Opened | Forked | Accepted | WireError | Pong | KeptMessage | ResumedMessage


# ---- Decoding --------------------------------------------------------------------------------------------------------
class _Address(NamedTuple):
    """What an error should still say of a message that does not decode."""

    stream: str | None = None
    ref: str | None = None


class _Addressed(msgspec.Struct):
    stream: Any = None
    ref: Any = None


_InText = OpenMessage | TextMessage | _OfStream | Ping | Keep | Resume
_text_decoder = msgspec.json.Decoder(_InText)
_header_decoder = msgspec.json.Decoder(Header)
_address_decoder = msgspec.json.Decoder(_Addressed)
_encoder = msgspec.json.Encoder()
_header_size = struct.Struct("<H")
_path = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]+)`)?$", re.DOTALL)
_place = re.compile(r"(?P<name>\w+)[.\w\[\]]*")
_field = re.compile(r"(?:missing required|contains unknown) field `([^`]+)`")
T = TypeVar("T")


def decode_text(text: str | bytes) -> Command:
    """The command in a text frame. MessageError (with the path that was wrong) where it does not follow the wire."""
    message = _decode(_text_decoder, text)
    if isinstance(message, TextMessage):
        return Input(message.stream, message.ref, items.Text(message.text), len(text))
    if isinstance(message, OpenMessage):
        _check(message.request(), message)
        _check_media(message)
        _check_params(message.params, message)
    elif isinstance(message, Ask) and message.params is not None:
        _check_params(message.params, message)
    return message


def decode_binary(data: bytes | bytearray | memoryview) -> Input:
    """The item in a binary frame; its data is a memoryview into `data`, which it keeps alive.

    MessageError where the header does not decode, its length is wrong, or a payload is missing that must be there.
    """
    view = memoryview(data)
    if len(view) < _header_size.size:
        raise MessageError(f"binary message: expected at least {_header_size.size} bytes, got {len(view)}")
    (length,) = _header_size.unpack_from(view)
    start = _header_size.size + length
    if start > len(view):
        raise MessageError(
            f"header length: expected at most {len(view) - _header_size.size} (what follows it), got {length}"
        )
    header = _decode(_header_decoder, view[_header_size.size : start])
    payload = view[start:]
    may_be_empty = isinstance(header, VideoHeader | AudioHeader) and header.final
    if not payload and not may_be_empty:
        raise MessageError("payload: expected at least 1 byte, got 0", None, header.stream, header.ref)
    return Input(header.stream, header.ref, _item(header, payload), len(view))


def _item(header: Header, payload: memoryview) -> items.Item:
    match header:
        case ImageHeader():
            return items.Image(payload, header.pts_us)
        case FrameHeader():
            return items.VideoFrame(payload, header.pts_us, header.encoding, header.width, header.height)
        case VideoHeader():
            return items.VideoBytes(payload, header.final, header.pts_us)
        case PcmHeader():
            return items.AudioChunk(payload, header.rate, header.pts_us, header.encoding, header.channels)
        case AudioHeader():
            return items.AudioBytes(payload, header.final, header.pts_us)
        case EmbeddingHeader():
            rows = payload if header.encoding == "safetensors" else _rows(header, payload)
            return items.Embedding(rows, header.kind, header.grid, header.pts_us, header.stop_us)


def _rows(header: EmbeddingHeader, payload: memoryview) -> np.ndarray:
    """Raw rows `(n, width)`."""
    kind = np.dtype("<f4" if header.encoding == "f32le" else "<f2")
    row = header.width * kind.itemsize
    if not row or len(payload) % row:
        raise MessageError(
            f"payload: expected whole rows of {row} bytes (width x {kind.itemsize}), got {len(payload)} bytes",
            None,
            header.stream,
            header.ref,
        )
    return np.frombuffer(payload, kind).reshape(-1, header.width)


def _decode(decoder: msgspec.json.Decoder[T], data: str | bytes | memoryview) -> T:
    try:
        return decoder.decode(data)
    except RecursionError:
        address = _address(data)
        raise MessageError("expected less deep nesting, got more", "$", address.stream, address.ref) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        found = _path.match(str(error))
        assert found is not None
        path = found["path"] or "$"
        field = _field.search(found["what"])
        if field is not None:
            path = f"{path}.{field[1]}"
        address = _address(data)
        raise MessageError(found["what"], path, address.stream, address.ref) from None


def _address(data: str | bytes | memoryview) -> _Address:
    try:
        found = _address_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _Address()
    return _Address(*(value if isinstance(value, str) else None for value in (found.stream, found.ref)))


def _check_params(params: Params, message: OpenMessage | Ask) -> None:
    _check(plain_params(params), message, "params.")


def _check_media(message: OpenMessage) -> None:
    try:
        check_inline(message.messages, message.media)
    except InputError as error:
        raise _placed(error, message) from None


def _check(value: Request | SamplingParams, message: OpenMessage | Ask, prefix: str = "") -> None:
    try:
        value.check()
    except InputError as error:
        place = _place.match(str(error))
        if place is None or place["name"] not in value.__struct_fields__:
            return  # Of the params inside a request, which are checked on their own.
        raise _placed(error, message, prefix) from None


def _placed(error: InputError, message: OpenMessage | Ask, prefix: str = "") -> MessageError:
    """The error of a value, which begins with its place."""
    place = _place.match(str(error))
    path = "$" if place is None else f"$.{prefix}{place[0]}"
    return MessageError(str(error), path, message.stream, message.ref)


def plain_params(params: SamplingParams) -> SamplingParams:
    """The same values as a plain `SamplingParams`."""
    return SamplingParams(**{name: getattr(params, name) for name in SamplingParams.__struct_fields__})


def wire_params(params: SamplingParams) -> Params:
    """The same values as the wire has them."""
    return Params(**{name: getattr(params, name) for name in SamplingParams.__struct_fields__})


# ---- Encoding --------------------------------------------------------------------------------------------------------
def encode_answer(answer: Answer) -> bytes:
    """One text frame of the server."""
    return _encoder.encode(answer)


def encode_event(stream: str, event: Event) -> bytes:
    """One event as a text frame: the event's own fields and tag, with the stream's name in front."""
    return b'{"stream":' + _encoder.encode(stream) + b"," + _encoder.encode(event)[1:]


def encode_binary(header: Header, payload: bytes | bytearray | memoryview) -> bytes:
    """One binary frame of a client."""
    head = _encoder.encode(header)
    return b"".join((_header_size.pack(len(head)), head, payload))


def encode_command(message: _InText) -> str:
    """One text frame of a client."""
    return _encoder.encode(message).decode()
