"""What a conversation is made of, checked: messages, their parts, and the value in a part of media. In: `messages` as a
client hands them in. Out: the same, or InputError that names the place (`messages[1].content[0]`).

It knows the content parts of Hugging Face and of OpenAI. Nothing is decoded, nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...errors import InputError

KINDS = ("image", "video", "audio")
TAKEN = "a PIL image, an array, bytes, a path, a data: URL or an item"
_OPENAI = {"image_url": "image", "video_url": "video", "audio_url": "audio", "input_audio": "audio"}
# Parts that are rows made elsewhere, and what they stand for; None: the part says it as its "kind".
EMBEDDED = {"embedding": None, "image_embeds": "image", "video_embeds": "video", "audio_embeds": "audio"}
_MESSAGE = "{'role': ..., 'content': text or a list of parts}"
_TOOL = "{'type': 'function', 'function': {'name': ..., ...}}"
_SHOWN = 40


class Value(NamedTuple):
    """What a part of media holds, still as it was written. `place` ends with its key; `base64`: it is text of that.
    `embedded`: it is rows that were made elsewhere, of which these are the part's own words; None: it is a medium."""

    kind: str
    place: str
    found: Any
    base64: bool
    rate: int  # Hz, where the part says so; else 0
    embedded: dict[str, Any] | None = None


def check_messages(messages: Any) -> None:
    """Raise InputError where this is no conversation; says at which place, what was expected and what came."""
    if not isinstance(messages, list | tuple):
        raise InputError(f"messages: expected a list of {_MESSAGE}, got {described(messages)}")
    if not messages:
        raise InputError("messages: expected at least one message, got none")
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if not isinstance(message, dict):
            raise InputError(f"{place}: expected {_MESSAGE}, got {described(message)}")
        role, content = _field(message, "role"), _field(message, "content")
        if not isinstance(role, str) or not role:
            raise InputError(f"{place}.role: expected a name such as 'user', got {described(role)}")
        check_unicode(f"{place}.role", role)
        if isinstance(content, str):
            check_unicode(f"{place}.content", content)
        elif not isinstance(content, list | tuple):
            raise InputError(f"{place}.content: expected text or a list of parts, got {described(content)}")
    for place, part in parts(messages):
        check_part(place, part)


def check_tools(tools: Any) -> None:
    """Raise InputError where these are no functions as OpenAI writes them; says at which place."""
    if not isinstance(tools, list | tuple):
        raise InputError(f"tools: expected a list of {_TOOL}, got {described(tools)}")
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
            raise InputError(f"{place}: expected {_TOOL}, got {described(tool)}")
        name = _field(tool["function"], "name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{place}.function.name: expected a name, got {described(name)}")


def parts(messages: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """All content parts of a conversation that holds lists of them, with their places."""
    for number, message in enumerate(messages):
        content = message["content"]
        for index, part in enumerate(() if isinstance(content, str) else content):
            yield f"messages[{number}].content[{index}]", part


def replaced(messages: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with other parts at these places."""
    if not found:
        return messages
    made = []
    for number, message in enumerate(messages):
        content = message["content"]
        if not isinstance(content, str):
            places = (f"messages[{number}].content[{index}]" for index in range(len(content)))
            content = [found.get(place, part) for place, part in zip(places, content, strict=True)]
        made.append({**message, "content": content})
    return made


def check_part(place: str, part: Any) -> None:
    """Raise InputError where this is no content part."""
    if not isinstance(part, dict):
        raise InputError(f"{place}: expected {{'type': ..., ...}}, got {described(part)}")
    if part.get("type") != "text":
        value_of(place, part)
        return
    text = _field(part, "text")
    if not isinstance(text, str):
        raise InputError(f"{place}.text: expected text, got {described(text)}")
    check_unicode(f"{place}.text", text)


def value_of(place: str, part: dict[str, Any]) -> Value:
    """Kind and value of a part of media. InputError where it is none, or its value can be no media."""
    name = _field(part, "type")
    if isinstance(name, str) and name in EMBEDDED:
        return _rows_of(place, part, name)
    kind = _OPENAI.get(name, name) if isinstance(name, str) else None
    if kind not in KINDS:
        known = ", ".join((*KINDS, *_OPENAI, *EMBEDDED))
        raise InputError(f"{place}.type: expected text, {known}, got {described(name)}")
    key = next((key for key in (name, "path", "url", "base64") if key in part), None)
    if key is None:
        raise InputError(f"{place}: expected its value under {name!r}, got only {', '.join(map(repr, part))}"[:200])
    found, at, base64 = part[key], f"{place}.{key}", key == "base64"
    if isinstance(found, dict):
        inner = "data" if "data" in found else "url"
        found, at, base64 = _field(found, inner), f"{at}.{inner}", inner == "data"
    if base64 and not isinstance(found, str | bytes):
        raise InputError(f"{at}: expected base64, got {described(found)}")
    if found is None or isinstance(found, bool | int | float | dict | _Nothing):
        raise InputError(f"{at}: expected {TAKEN}, got {described(found)}")
    rate = part.get("sampling_rate")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int) or rate < 1):
        raise InputError(f"{place}.sampling_rate: expected a whole number of Hz, got {described(rate)}")
    return Value(kind, at, found, base64, rate or 0)


def _rows_of(place: str, part: dict[str, Any], name: str) -> Value:
    """The value of a part that is rows made elsewhere: a file, numbers in base64, an array or an item."""
    key = next((key for key in (name, "path", "base64") if key in part), None)
    if key is None:
        raise InputError(f"{place}: expected its rows under {name!r}, got only {', '.join(map(repr, part))}"[:200])
    found, at, said = part[key], f"{place}.{key}", part
    if isinstance(found, dict):
        found, at, said = _field(found, "data"), f"{at}.data", {**part, **found}
    if found is None or isinstance(found, bool | int | float | list | tuple | dict | _Nothing):
        raise InputError(f"{at}: expected base64 of a safetensors file or of numbers, got {described(found)}")
    kind = EMBEDDED[name] or said.get("kind", getattr(found, "kind", "image"))
    if kind not in (*KINDS, "text"):
        raise InputError(f"{place}.kind: expected {', '.join(KINDS)} or text, got {described(kind)}")
    return Value(kind, at, found, isinstance(found, str) and key != "path", 0, said)


def check_unicode(place: str, text: str) -> None:
    """Raise InputError for a text that holds half a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"half a character ({text[error.start]!a}) at {error.start}"
        raise InputError(f"{place}: expected Unicode text, got {half}") from None


def described(value: Any) -> str:
    """What came, in a few words that say nothing secret or long."""
    match value:
        case None:
            return "null"
        case bool() | float():
            return repr(value).lower()
        case int():
            return repr(value) if abs(value) < 2**63 else "a number beyond 64 bits"
        case str():
            return ascii(value[:_SHOWN])
        case _Nothing():
            return "nothing"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return f"an object with {', '.join(ascii(key)[:_SHOWN] for key in list(value)[:5])}" if value else "{}"
    return type(value).__name__


class _Nothing:
    """A field that is not there."""


_NOTHING = _Nothing()


def _field(given: dict[str, Any], name: str) -> Any:
    return given.get(name, _NOTHING)
