"""What clients say on `/v1/realtime`, and the words that the server's events are made of. In: JSON. Out: one of the
client events below, or `Fault`. Knows neither the conversation nor a session.
"""

from __future__ import annotations

import secrets
from typing import Any, Literal

import msgspec

# A message of the server stays below what clients with the defaults of their libraries take (1 MiB).
MOST_BYTES = 1_000_000
# Objects and lists inside each other in what is kept as a client wrote it. Schemas of tools stay far below.
MOST_NESTED = 100


class Fault(Exception):
    """What a client asked for cannot be done. `code` and `param` are those of OpenAI's errors."""

    def __init__(self, message: str, code: str | None = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


# ---- items, as clients write them ------------------------------------------------------------------------------------
class ContentSaid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One content part; which fields it needs depends on its `type`."""

    type: str
    text: str | None = None
    image_url: str | None = None
    audio: bytes | None = None
    transcript: str | None = None
    detail: str | None = None


class _ItemSaid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str | None = None
    object: str | None = None  # as the server shows items: it says nothing
    status: str | None = None  # the same


class MessageSaid(_ItemSaid, frozen=True, kw_only=True, tag="message"):
    role: Literal["user", "assistant", "system"]
    content: list[ContentSaid]


class CallSaid(_ItemSaid, frozen=True, kw_only=True, tag="function_call"):
    name: str
    arguments: str
    call_id: str | None = None


class OutputSaid(_ItemSaid, frozen=True, kw_only=True, tag="function_call_output"):
    call_id: str
    output: str


class ReferenceSaid(msgspec.Struct, frozen=True, kw_only=True, tag="item_reference", forbid_unknown_fields=True):
    """An item of the conversation, in the `input` of a response."""

    id: str


ItemSaid = MessageSaid | CallSaid | OutputSaid


# ---- the events of a client ------------------------------------------------------------------------------------------
class _Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    event_id: str | None = None


class UpdateSession(_Said, frozen=True, kw_only=True, tag="session.update"):
    session: dict[str, Any]


class AppendSound(_Said, frozen=True, kw_only=True, tag="input_audio_buffer.append"):
    audio: bytes


class CommitSound(_Said, frozen=True, kw_only=True, tag="input_audio_buffer.commit"):
    pass


class ClearSound(_Said, frozen=True, kw_only=True, tag="input_audio_buffer.clear"):
    pass


class CreateItem(_Said, frozen=True, kw_only=True, tag="conversation.item.create"):
    item: ItemSaid
    previous_item_id: str | None = None


class RetrieveItem(_Said, frozen=True, kw_only=True, tag="conversation.item.retrieve"):
    item_id: str


class DeleteItem(_Said, frozen=True, kw_only=True, tag="conversation.item.delete"):
    item_id: str


class TruncateItem(_Said, frozen=True, kw_only=True, tag="conversation.item.truncate"):
    item_id: str
    content_index: int = 0
    audio_end_ms: int = 0


class ResponseSaid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a response is asked to be; None: as the session says. `audio`, `reasoning` and `parallel_tool_calls` are
    taken and have no effect."""

    conversation: str | None = None
    input: list[ItemSaid | ReferenceSaid] | None = None
    instructions: str | None = None
    max_output_tokens: int | str | None = None
    metadata: dict[str, str] | None = None
    output_modalities: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    prompt: Any = None
    audio: Any = None
    reasoning: Any = None
    parallel_tool_calls: Any = None


class CreateResponse(_Said, frozen=True, kw_only=True, tag="response.create"):
    response: ResponseSaid | None = None


class CancelResponse(_Said, frozen=True, kw_only=True, tag="response.cancel"):
    response_id: str | None = None


class ClearSpoken(_Said, frozen=True, kw_only=True, tag="output_audio_buffer.clear"):
    pass


ClientEvent = (
    UpdateSession
    | AppendSound
    | CommitSound
    | ClearSound
    | CreateItem
    | RetrieveItem
    | DeleteItem
    | TruncateItem
    | CreateResponse
    | CancelResponse
    | ClearSpoken
)

_DECODER = msgspec.json.Decoder(ClientEvent)
_ID = msgspec.json.Decoder(dict[str, Any])


def decode(message: str | bytes) -> ClientEvent:
    """The event that a message is. Fault where it is none; it says at which place."""
    if isinstance(message, bytes):
        raise Fault("expected a text message with a JSON event, got a binary message", "invalid_json")
    try:
        said = _DECODER.decode(message)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        place = path.strip("`").removeprefix("$").lstrip(".")
        code = "unknown_event" if place == "type" else "invalid_value"
        if what.startswith("Object contains unknown field"):
            code = "unknown_parameter"
        raise Fault(f"{place or 'event'}: {what[:1].lower()}{what[1:]}", code, place or None) from None
    except RecursionError:
        raise Fault(f"event: expected at most {MOST_NESTED} values inside each other, got more") from None
    except (msgspec.DecodeError, UnicodeError):
        raise Fault(f"expected a JSON event, got {message[:20]!r}", "invalid_json") from None
    match said:
        case UpdateSession(session=session):
            _check_nesting(session, "session")
        case CreateResponse(response=ResponseSaid(tools=tools, tool_choice=choice)):
            _check_nesting([tools, choice], "response")
    return said


def _check_nesting(value: Any, place: str, left: int = MOST_NESTED) -> None:
    """Fault where values lie so deep inside each other that a copy, or an answer that has them, could fail."""
    if isinstance(value, dict | list):
        if left == 0:
            raise Fault(f"{place}: expected at most {MOST_NESTED} values inside each other, got more", param=place)
        for inner in value.values() if isinstance(value, dict) else value:
            _check_nesting(inner, place, left - 1)


def event_id_of(message: str | bytes) -> str | None:
    """The id that a client gave its event, if it can be read."""
    try:
        found = _ID.decode(message).get("event_id")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


# ---- the events of the server ----------------------------------------------------------------------------------------
def new_id(kind: str) -> str:
    """A name of a kind ("item", "resp", "event") that nobody has."""
    return f"{kind}_{secrets.token_hex(10)}"


def encode(kind: str, **fields: Any) -> bytes:
    """An event of the server."""
    return msgspec.json.encode({"type": kind, "event_id": new_id("event"), **fields})


# What OpenAI's clients know an error by, where that is not our own code.
_CODES = {"quota": "insufficient_quota", "rate_limit": "rate_limit_exceeded", "input": "invalid_value"}


def openai_code(code: str) -> str:
    """The code of an error of the session or of a stream, as OpenAI's clients know it."""
    return _CODES.get(code, code)


def encode_error(
    message: str,
    code: str | None = None,
    param: str | None = None,
    event_id: str | None = None,
) -> bytes:
    """An `error`; `event_id` is that of the client's event which it is about."""
    kind = "server_error" if code == "internal" else "invalid_request_error"
    error = {"type": kind, "message": message, "code": code, "param": param, "event_id": event_id}
    return encode("error", error=error)
