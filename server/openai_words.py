"""The words of OpenAI's HTTP interface that its doors share: errors, usage, what ends a reply, server-sent events.

In come errors and answers of a session; out go statuses and JSON. Knows no path, no door and no socket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from ..streams.requests.messages import described
from ..streams.requests.request import SamplingParams
from .commands import Refused
from .errors import MessageError, ModelNameError

# The status of each code of an error; that of any other is 400: the request was wrong.
_STATUS = {
    "model_not_found": 404,
    "server_limit": 429,
    "rate_limit": 429,
    "quota": 429,
    "overload": 429,
    "draining": 503,
    "stream_closed": 503,
    "out_of_memory": 503,
    "encoder_away": 503,
    "engine_failed": 503,
    "internal": 500,
    "not_finite": 500,
}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
# What OpenAI's clients know an error by, where that is not our own code.
_CODES = {"context_overflow": "context_length_exceeded", "input": "invalid_value", "message": "invalid_value"}
_OWN = ("messages", "tools", "prompt", "prompt_ids", "media", "language", "model")
_ROOTS = "|".join((*_OWN, *SamplingParams.__struct_fields__))
_PLACE = re.compile(rf"(?:params\.)?((?:{_ROOTS})\b(?:\[\d+\])*(?:\.[a-z_]+(?:\[\d+\])*)*): ")
_MESSAGE = re.compile(r"^messages\[(\d+)\]")
_FINISH = {"stop": "stop", "length": "length", "overtaken": "stop", "interrupted": "stop"}
# What says nothing about the answer: it is taken and not looked at.
HARMLESS = {
    "user",
    "store",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
    "stream_options",
}
DONE = b"data: [DONE]\n\n"

Body = TypeVar("Body", bound=msgspec.Struct)


class RequestBody(NamedTuple):
    """The body of a request, and its `content-type`; empty where it has none."""

    data: bytes
    content_type: str


class RequestMark(NamedTuple):
    """What tells one request from all others: `id` is unique, `created` in seconds since 1970."""

    id: str
    created: int


class Failure(NamedTuple):
    """Why a request comes to nothing: a status and a body in OpenAI's shape."""

    status: int
    body: dict[str, Any]


def failure(status: int, message: str, param: str | None = None, code: str | None = None) -> Failure:
    """`{"error": {"message", "type", "param", "code"}}` with its status."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return Failure(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})


def failed(code: str, message: str, path: str | None = None) -> Failure:
    """An error of the engine or of the session: `param` is the place that it names."""
    place = _PLACE.match(message)
    param = path or (place[1] if place else None)
    if param is not None and param.startswith("structured"):
        param = "response_format"
    return failure(_STATUS.get(code, 400), message, param, _CODES.get(code, code))


def refused(answer: Refused) -> Failure:
    """What the session has refused."""
    return failed(answer.code, answer.message, answer.path)


def at_place(text: str, places: Sequence[str]) -> str:
    """A text in which `messages[i]` stands as the client has written it: `places[i]`."""
    return _MESSAGE.sub(lambda found: places[min(int(found[1]), len(places) - 1)], text, count=1)


def at_places(failure: Failure, places: Sequence[str]) -> Failure:
    """The same failure with the place as the client has written it."""
    error = failure.body["error"]
    said = {name: at_place(error[name], places) for name in ("message", "param") if error[name] is not None}
    return Failure(failure.status, {"error": error | said})


def usage(rows: int, tokens: int, cached: int) -> dict[str, Any]:
    """What a chat or a completion has cost. `cached`: the rows of the prompt that the KV cache held."""
    return {
        "prompt_tokens": rows,
        "completion_tokens": tokens,
        "total_tokens": rows + tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def finish_reason(reason: str, calls: bool = False) -> str:
    """Why a reply has ended, by the reason of `ReplyDone`."""
    return "tool_calls" if calls and reason == "stop" else _FINISH.get(reason, "stop")


def sse(body: Any, event: str | None = None) -> bytes:
    """A server-sent event."""
    head = b"" if event is None else f"event: {event}\n".encode()
    return head + b"data: " + msgspec.json.encode(body) + b"\n\n"


def read_body(data: bytes, kind: type[Body], refuses: Mapping[str, str] = {}) -> Body:
    """The fields of a request's body. MessageError for what is no JSON object, and as `read_fields`."""
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"expected a JSON object, got no JSON: {error}") from None
    if not isinstance(raw, dict):
        raise MessageError(f"expected a JSON object, got {described(raw)}")
    return read_fields(raw, kind, refuses)


def read_fields(raw: Mapping[str, Any], kind: type[Body], refuses: Mapping[str, str] = {}, strict: bool = True) -> Body:
    """The fields of a request. MessageError for a field that is not known, with its name, and for one of another type.
    `refuses`: fields that are not served, and why; off they do no harm. `strict` false: numbers may come as text."""
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    for name, value in raw.items():
        if name in known | HARMLESS or value is None or (name in refuses and not value):
            continue
        why = refuses.get(name, "this server does not know it, and does not leave out what may change the answer")
        raise MessageError(f"{name[:80]}: expected no such field, got {described(value)}: {why}", name[:80])
    given = {name: value for name, value in raw.items() if value is not None and name in known}
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        place = path.strip("`").removeprefix("key in `").removeprefix("$").lstrip(".") or None
        missing = re.search(r"required field `(\w+)`", what)
        if missing is not None:
            place = f"{place}.{missing[1]}" if place else missing[1]
            what = "expected a value, got nothing"
        words = what[:1].lower() + what[1:]
        raise MessageError(f"{place}: {words}" if place else words, place) from None


def as_places(error: Exception, names: Mapping[str, str]) -> MessageError:
    """An error of the engine's checks, in the names that the client has used: `names` has the client's by ours."""
    message = str(error)
    place = _PLACE.match(message)
    own = place[1] if place else None
    theirs = names.get(own, own) if own is not None else None
    if own is not None and theirs is not None and theirs != own:
        message = theirs + message[message.index(own) + len(own) :]
    return MessageError(message, theirs)


class Named(NamedTuple):
    """The model that a client has named: what it is called in the answer, and the adapter that it is; None: none."""

    model: str
    adapter: str | None


def named_model(asked: str | None, served: str, adapters: Sequence[str]) -> Named:
    """What a client asks for by name: the model that is served, or an adapter over it. ModelNameError for any other."""
    if asked in adapters:
        return Named(str(asked), asked)
    if asked in (None, "", served, served.rpartition("/")[2]):
        return Named(served, None)
    known = " or ".join(map(repr, (served, *adapters)))
    raise ModelNameError(f"model: expected {known}, which this server has, got {asked[:80]!r}", "model")


def model_card(served: str, created: int, parent: str | None = None) -> dict[str, Any]:
    """What `/v1/models` says of the model, or of an adapter over it, whose `parent` the model is."""
    card = {"id": served, "object": "model", "created": created, "owned_by": "penstock"}
    return card if parent is None else {**card, "parent": parent}
