"""What was said and shown on one Gemini Live connection, in order: as items for a stream, and as a prompt.

It knows neither a stream nor the wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ....streams.item import AudioChunk, Image, Item, Text

# The most bytes of media that are kept, to be shown to the model again where only a prompt can hold the past.
KEPT_BYTES = 64 * 2**20


class GeminiCall(msgspec.Struct, frozen=True):
    """A call of a function, as the model made it: `arguments` is JSON."""

    id: str
    name: str
    arguments: str

    def parsed(self) -> Any:
        """The arguments as an object; as they are where they are no JSON."""
        try:
            return msgspec.json.decode(self.arguments)
        except msgspec.DecodeError:
            return self.arguments

    def called(self) -> dict[str, Any]:
        """It, as chat templates want it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.parsed()}}


class GeminiEntry:
    """What one side said at once. `role`: "user" (words, or one piece of media), "model" (words and calls) or "tool"
    (the response to a call). `media`: the bytes; `rate`: of sound."""

    def __init__(self, role: str, text: str = "", media: bytes | None = None, rate: int = 0) -> None:
        self.role = role
        self.text = text
        self.media = media
        self.rate = rate
        self.calls: Sequence[GeminiCall] = ()
        self.call_id = ""
        self.running = False  # a reply still writes it: a prompt has it not

    @property
    def kind(self) -> str:
        return "text" if self.media is None else "audio" if self.rate else "image"

    def item(self) -> Item:
        """It, for a stream."""
        if self.media is None:
            return Text(self.text)
        return AudioChunk(self.media, self.rate) if self.rate else Image(self.media)

    def part(self) -> dict[str, Any]:
        """It, for a message of a prompt."""
        return (
            {"type": "text", "text": self.text} if self.media is None else {"type": self.kind, self.kind: self.item()}
        )


class GeminiHistory:
    """The entries, in order. Media is kept up to `KEPT_BYTES`."""

    def __init__(self) -> None:
        self.entries: list[GeminiEntry] = []
        self._kept: deque[GeminiEntry] = deque()  # those whose media is kept, oldest first
        self._bytes = 0  # of it
        self.forgets = False  # media has gone that a prompt would need

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, entry: GeminiEntry, place: int | None = None) -> None:
        """Put an entry in a place; None: last. Media that is empty was not kept."""
        self.entries.insert(len(self) if place is None else place, entry)
        self._bytes += len(entry.media or b"")
        self.forgets |= entry.media == b""
        if entry.media:
            self._kept.append(entry)
        while self._bytes > KEPT_BYTES:
            old = self._kept.popleft()
            self._bytes -= len(old.media or b"")
            old.media, self.forgets = b"", True

    def media_kinds(self) -> list[str]:
        """The kinds of the media of a prompt, in order."""
        return [part["type"] for message in self.messages() for part in _parts(message) if part["type"] != "text"]

    def messages(self) -> list[dict[str, Any]]:
        """All of it, as messages for a chat template. What a user says piece by piece is one turn, as in a stream."""
        messages: list[dict[str, Any]] = []
        for entry in _joined(self.entries):
            last: dict[str, Any] = messages[-1] if messages else {"role": ""}
            match entry.role:
                case "model" if entry.running:
                    pass
                case "user" if last["role"] == "user":
                    last["content"].append(entry.part())
                case "user":
                    messages.append({"role": "user", "content": [entry.part()]})
                case "model":
                    calls = [call.called() for call in entry.calls]
                    said = {"role": "assistant", "content": entry.text}
                    messages.append({**said, "tool_calls": calls} if calls else said)
                case _:
                    messages.append({"role": "tool", "tool_call_id": entry.call_id, "content": entry.text})
        return messages


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    return message["content"] if isinstance(message["content"], list) else []


def _joined(entries: Sequence[GeminiEntry]) -> Iterator[GeminiEntry]:
    """The entries, with pieces of sound that follow each other as one."""
    pieces: list[GeminiEntry] = []
    for entry in [*entries, None]:
        if pieces and (entry is None or entry.rate != pieces[0].rate):
            yield GeminiEntry("user", media=b"".join(piece.media or b"" for piece in pieces), rate=pieces[0].rate)
            pieces = []
        if entry is not None and entry.rate:
            pieces.append(entry)
        elif entry is not None:
            yield entry
