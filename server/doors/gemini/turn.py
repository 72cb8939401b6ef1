"""One turn of the model: its messages, in their order. In: the tokens of a reply and how it ends. Out: encoded
messages, and what the history keeps of it.

A turn that is not cut tells `generationComplete` and then `turnComplete`; one that is cut tells `interrupted` and then
`turnComplete`. A turn that calls functions tells `toolCall`, and is complete with the reply to what they return.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from ....streams.event import ReplyDone, Token
from ...tool_calls import ReplyPart, TextDelta, ToolCallReader, ToolCallStarted
from .history import GeminiCall, GeminiEntry
from .wire import encode


def turn_complete(usage: dict[str, Any] | None = None) -> bytes:
    """The end of a turn."""
    more = {} if usage is None else {"usageMetadata": usage}
    return encode(serverContent={"turnComplete": True}, **more)


def interrupted() -> bytes:
    """A turn was cut."""
    return encode(serverContent={"interrupted": True})


class GeminiTurn:
    """A turn that runs. `entry`: its place in the history; `functions`: those that it may call."""

    def __init__(self, entry: GeminiEntry, functions: list[str]) -> None:
        self.entry = entry
        self.calls: list[GeminiCall] = []
        self.raw = ""  # all that the model has said, calls too
        self._texts: list[str] = []  # one for each token
        self._words: list[str] = []  # those that are no calls
        self._reader = ToolCallReader(functions, lambda _: f"call_{secrets.token_hex(8)}") if functions else None

    def token(self, token: Token) -> Iterator[bytes]:
        """The next token."""
        self._texts.append(token.text)
        yield from self._said(token.text)

    def done(self, done: ReplyDone, usage: dict[str, Any]) -> Iterator[bytes]:
        """It has ended: the entry has what it said, and `calls` the functions that it calls."""
        self.raw = self.entry.text = "".join(self._texts[: done.tokens]) + done.text
        if done.reason in ("interrupted", "overtaken"):
            self.calls = []
            yield interrupted()
            yield turn_complete(usage)
            return
        yield from self._said(done.text)
        if self._reader is not None:
            yield from self._write(self._reader.end())
        if self.calls:
            self.entry.text, self.entry.calls = "".join(self._words), tuple(self.calls)
            made = [{"id": call.id, "name": call.name, "args": call.parsed()} for call in self.calls]
            yield encode(toolCall={"functionCalls": made}, usageMetadata=usage)
            return
        yield encode(serverContent={"generationComplete": True})
        yield turn_complete(usage)

    def _said(self, text: str) -> Iterator[bytes]:
        parts: list[ReplyPart] = [TextDelta(text)] if self._reader is None else self._reader.feed(text)
        yield from self._write(parts)

    def _write(self, parts: list[ReplyPart]) -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, ToolCallStarted):
                self.calls.append(GeminiCall(part.id, part.name, ""))
            elif not isinstance(part, TextDelta):
                last = self.calls[-1]
                self.calls[-1] = GeminiCall(last.id, last.name, last.arguments + part.text)
            elif part.text:
                self._words.append(part.text)
                yield encode(serverContent={"modelTurn": {"role": "model", "parts": [{"text": part.text}]}})
