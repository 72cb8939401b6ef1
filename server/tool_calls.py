"""Calls of tools, read from the words of a reply while they come. Sans I/O.

In come the pieces of a reply's text; out go words for the client and calls. The forms that models write are known:
`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, and a reply that is nothing but such JSON. What looks like a
call and is none comes out as the words that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
CALL_ENDS = _CLOSE  # what a model writes behind a call


class TextDelta(msgspec.Struct, frozen=True):
    """Words that are no call."""

    text: str


class ToolCallStarted(msgspec.Struct, frozen=True):
    """The call number `index` of this reply, counted from 0."""

    index: int
    id: str
    name: str


class ToolCallArguments(msgspec.Struct, frozen=True):
    """A piece of the arguments of a call: text that is JSON when all pieces have come."""

    index: int
    text: str


ReplyPart = TextDelta | ToolCallStarted | ToolCallArguments


def call_schema(functions: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The JSON schema of a call of one of these functions, as a reply that is nothing but the call. `functions`: the
    schema of each one's arguments. ValueError where two of them define the same name under `$defs` in two ways."""
    defined: dict[str, Any] = {}
    calls = []
    for name, given in functions.items():
        arguments = {"type": "object", **given}
        for word in ("$defs", "definitions"):
            for key, schema in arguments.pop(word, {}).items():
                if defined.setdefault(word, {}).setdefault(key, schema) != schema:
                    raise ValueError(f"expected one definition of {key!r} in all functions, got several")
        call = {"name": {"const": name}, "arguments": arguments}
        calls.append({"type": "object", "properties": call, "required": [*call], "additionalProperties": False})
    return {"anyOf": calls, **defined}


class ToolCallReader:
    """Reads one reply. `names`: the tools that may be called; `make_id` gives each call its id; of more calls than
    `most` the first ones count."""

    def __init__(self, names: Collection[str], make_id: Callable[[int], str], most: int | None = None) -> None:
        self._most = most
        self._names = frozenset(names)
        self._make_id = make_id
        self._held = ""  # read, and not yet known to be words or a call
        self._begun = False  # something but white space has come
        self._space: str | None = None  # white space since the newest call; None: words have come since, or no call
        self.calls = 0

    def feed(self, text: str) -> list[ReplyPart]:
        """The next piece of the reply."""
        self._held += text
        found: list[ReplyPart] = []
        while self._held:
            if not self._begun and self._may_be_json():
                return found
            place = self._held.find(_OPEN)
            if place < 0:
                keep = _overlap(self._held, _OPEN)
                self._words(self._held[: len(self._held) - keep], found)
                self._held = self._held[len(self._held) - keep :]
                return found
            end = self._held.find(_CLOSE, place)
            if end < 0:
                self._words(self._held[:place], found)
                self._held = self._held[place:]
                return found
            self._words(self._held[:place], found)
            whole, self._held = self._held[place : end + len(_CLOSE)], self._held[end + len(_CLOSE) :]
            self._call(whole, whole[len(_OPEN) : -len(_CLOSE)], found)
        return found

    def end(self) -> list[ReplyPart]:
        """The reply has ended: what is still held."""
        found: list[ReplyPart] = []
        whole, self._held = self._held, ""
        inside = whole.removeprefix(_OPEN) if whole.startswith(_OPEN) else whole
        if inside is not whole or not self._begun:
            self._call(whole, inside, found)
        else:
            self._words(whole, found)
        return found

    def _may_be_json(self) -> bool:
        """Whether all that has come may be the beginning of calls in bare JSON."""
        bare = self._held.lstrip()
        return not bare or bare[0] in "{["

    def _words(self, text: str, found: list[ReplyPart]) -> None:
        if self._space is not None and not text.strip():
            self._space += text  # no words, if a call or the end comes next
        elif text:
            text, self._space = (self._space or "") + text, None
            self._begun = True
            found.append(TextDelta(text))

    def _call(self, whole: str, inside: str, found: list[ReplyPart]) -> None:
        """`whole` is what it is if `inside` is no call."""
        calls = _calls(inside, self._names)
        if not calls:
            self._words(whole, found)
            return
        self._begun, self._space = True, ""
        for name, arguments in calls if self._most is None else calls[: self._most - self.calls]:
            found.append(ToolCallStarted(self.calls, self._make_id(self.calls), name))
            found.append(ToolCallArguments(self.calls, arguments))
            self.calls += 1


def _calls(text: str, names: frozenset[str]) -> list[tuple[str, str]]:
    """Names and arguments of the calls in a JSON text; none where it is anything else."""
    try:
        made: Any = msgspec.json.decode(text.strip().encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return []
    calls = []
    for call in made if isinstance(made, list) else [made]:
        inner = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(inner, dict) or inner.get("name") not in names:
            return []
        arguments = inner.get("arguments", inner.get("parameters", {}))
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        calls.append((inner["name"], arguments))
    return calls


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may begin `mark`."""
    longest = min(len(text), len(mark) - 1)
    return next((size for size in range(longest, 0, -1) if mark.startswith(text[-size:])), 0)
