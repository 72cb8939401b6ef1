"""The door of `/v1/realtime` in a room: what a client of OpenAI knows of the conversation, and what the model has."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from door_room import DoorRoom, Said, SteppedStream
from fake_engine import FakeEngine
from openai.types.realtime import RealtimeServerEvent
from penstock.server.config import ServerConfig
from penstock.server.doors.realtime.door import RealtimeDoor
from penstock.streams.event import ReplyDone, ReplyStarted
from penstock.streams.item import Image, Text
from pydantic import TypeAdapter

ADAPTER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


class RealtimeRoom(DoorRoom):
    """A door, its session and an engine that a test steps. `told`: the events of the server; `known`: the conversation
    as a client has it from them."""

    def __init__(self, **query: str) -> None:
        super().__init__(max_streams=8)
        self.door = RealtimeDoor(FakeEngine().info, ServerConfig(), query)  # pyright: ignore[reportArgumentType]
        self.told: list[dict[str, Any]] = []
        self.known: list[dict[str, Any]] = []
        self.expected: dict[str, list[Said]] = {}  # what a response to the conversation answers, by its id
        self.seen: dict[str, list[Said]] = {}  # what the model had before it
        self.ids: list[str] = []
        self.instructions = ""
        self.alone = False  # what is asked for now is to its own input
        self._hear(self.door.greet())

    def say(self, kind: str, **fields: Any) -> None:
        self._hear(self.door.hear(json.dumps({"type": kind, **fields})))

    def _hear(self, parts: Any) -> None:
        self._pass(parts)
        self.work()

    def _tell(self, frame: bytes) -> None:
        event = json.loads(frame)
        ADAPTER.validate_python(event)
        assert event["type"] == "error" or len(frame) < 1 << 20
        self.told.append(event)
        match event["type"]:
            case "conversation.item.added":
                before = event["previous_item_id"]
                place = next((n + 1 for n, item in enumerate(self.known) if item["id"] == before), 0)
                assert before is None or place, "expected an item that is known before it"
                self.known.insert(place, event["item"])
                self.ids.append(event["item"]["id"])
            case "conversation.item.done":
                place = next(n for n, item in enumerate(self.known) if item["id"] == event["item"]["id"])
                self.known[place] = event["item"]
            case "conversation.item.deleted":
                self.known = [item for item in self.known if item["id"] != event["item_id"]]
            case "response.created" if not self.alone:
                said = [said for item in self.known for said in words(item)]
                first = [("system", self.instructions)] if self.instructions else []
                self.expected[event["response"]["id"]] = joined([*first, *said])
            case "session.updated":
                self.instructions = event["session"]["instructions"]

    def _asked(self, stream: SteppedStream, ref: Any) -> None:
        stream.seq += 1
        stream.asked.append(stream.seq)
        if ref is not None:
            self.seen[ref[1]] = list(stream.said)

    def words(self, item: Any) -> str:
        return item_words(item)

    def step(self, choice: int) -> bool:
        """One step of a reply, in one of the streams that have one; False where none has."""
        busy = [(number, one) for number, one in self.streams.items() if one.busy]
        if not busy:
            return False
        channel, stream = busy[choice % len(busy)]
        if stream.reply is None:
            stream.reply, stream.replies = [], stream.replies + 1
            self.emit(channel, ReplyStarted(stream.replies, stream.asked.pop(0)))
        elif stream.cut or len(stream.reply) > choice % 4:
            self.finish(channel, stream, "interrupted" if stream.cut else ("stop", "length")[choice % 2])
        else:
            self.token(channel, stream, f"w{choice} ")
        return True

    def finish(self, channel: int, stream: SteppedStream, reason: str) -> None:
        reply, stream.reply, stream.cut = stream.reply or [], None, False
        if reply:
            stream.said.append(("assistant", "".join(reply)))
        stream.said, stream.waits = stream.said + stream.waits, []
        self.emit(channel, ReplyDone(stream.replies, reason, len(reply), rows=9))


def item_words(item: Any) -> str:
    match item:
        case Text(text=text):
            return text
        case Image():
            return "image"
    return "audio"


def words(item: dict[str, Any]) -> list[Said]:
    """What an item is for a model."""
    texts = [part.get("text", part["type"].removeprefix("input_")) for part in item.get("content", ())]
    return [(item.get("role", ""), text) for text in texts if text or item.get("role") != "assistant"]


def joined(said: Sequence[Said]) -> list[Said]:
    """The system prompt in one piece, as a prompt has it."""
    front = list(itertools.takewhile(lambda one: one[0] == "system", said))
    return [*([("system", "\n\n".join(text for _, text in front))] if front else []), *said[len(front) :]]
