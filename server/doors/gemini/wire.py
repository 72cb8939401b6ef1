"""Messages of `BidiGenerateContent` as JSON. In: what a client sent. Out: objects with their names in camelCase, or
`GeminiFault`. Clients write both `realtime_input` and `realtimeInput`, often in the same message.

It knows neither the conversation nor a session.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from typing import Any

import msgspec

from ...errors import HangUp

# The most bytes of the reason of a close frame (RFC 6455, 5.5).
REASON_BYTES = 123
INVALID, POLICY, FAILED = 1007, 1008, 1011


class GeminiFault(HangUp):
    """Ends the connection: this protocol has no message for errors. The reason is cut to what a close frame takes."""

    def __init__(self, reason: str, code: int = INVALID) -> None:
        super().__init__(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))


def expected(place: str, what: str, got: Any) -> GeminiFault:
    """The fault of a field; says what was expected there and what came."""
    return GeminiFault(f"{place}: expected {what}, got {got!r:.40}")


def encode(**message: Any) -> bytes:
    """A message of the server."""
    return msgspec.json.encode(message)


def decode(message: str | bytes) -> dict[str, Any]:
    """The JSON object that a message is. It may come as text or as bytes."""
    try:
        said = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise GeminiFault(f"expected a JSON object, got {message[:20]!r}") from None
    if not isinstance(said, dict):
        raise GeminiFault(f"expected a JSON object, got {message[:20]!r}")
    return said


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def fields(said: Any, place: str, known: Collection[str]) -> dict[str, Any]:
    """The fields of an object that have a value, by their names in camelCase. What is not known is a fault, unless it
    is null or false: then it asks for nothing."""
    if not isinstance(said, dict):
        raise expected(place, "an object", said)
    found: dict[str, Any] = {}
    for written, value in said.items():
        name = _camel(written)
        if name in found:
            raise GeminiFault(f"{place}.{name}: expected it once, got it in two casings")
        if name in known:
            if value is not None:
                found[name] = value
        elif value is not None and value is not False:
            raise GeminiFault(f"{place}.{written[:40]}: this server does not know or serve it")
    return found


def text_of(value: Any, place: str) -> str:
    """Words."""
    if not isinstance(value, str):
        raise expected(place, "text", value)
    return value


def flag_of(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise expected(place, "true or false", value)
    return value


def number_of(value: Any, place: str) -> int | float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise expected(place, "a number", value)
    return value


def whole_of(value: Any, place: str, least: int) -> int:
    """A whole number of at least `least`; 64-bit numbers may come as text, as Protocol Buffers write them."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    number = number_of(value, place)
    if number != int(number) or not least <= number < 2**63:
        raise expected(place, f"a whole number of at least {least} and less than 2^63", value)
    return int(number)


def list_of(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise expected(place, "a list", value)
    return value


def choice_of(value: Any, place: str, known: Collection[str]) -> str:
    """One of these words."""
    if not isinstance(value, str) or value not in known:
        raise expected(place, " or ".join(known), value)
    return value


def blob_of(said: Any, place: str) -> tuple[str, str, bytes]:
    """The MIME type of a blob, its parameters, and its bytes. Base64 may be URL-safe, and its padding may be left
    out."""
    blob = fields(said, place, ("data", "mimeType", "displayName"))
    kind, _, more = text_of(blob.get("mimeType"), f"{place}.mimeType").partition(";")
    data = text_of(blob.get("data"), f"{place}.data").translate({45: 43, 95: 47}).rstrip("=")
    try:
        raw = base64.b64decode(data + "=" * (-len(data) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise expected(f"{place}.data", "base64", data[:20]) from None
    if not raw:
        raise GeminiFault(f"{place}.data: expected at least 1 byte, got 0")
    return kind.strip().lower(), more.strip().lower(), raw
