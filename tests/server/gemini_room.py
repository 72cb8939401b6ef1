"""The door of Gemini Live in a room: what its client is told, and what the model has."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from door_room import DoorRoom, SteppedStream
from fake_engine import FakeEngine
from penstock.server import commands as c
from penstock.server.config import ServerConfig
from penstock.server.doors.gemini.door import GeminiDoor
from penstock.streams.event import ReplyDone, ReplyStarted, SpeechStarted, SpeechStopped
from penstock.streams.item import AudioChunk, Text

CALL = '<tool_call>{"name": "look", "arguments": {"at": 1}}</tool_call>'
SOUND = base64.urlsafe_b64encode(b"\xff\xfb" * 16_000).decode()


class GeminiRoom(DoorRoom):
    """A door, its session and an engine that a test steps. `told`: the server's messages."""

    def __init__(self, **setup: Any) -> None:
        super().__init__(max_streams=4)
        self.door = GeminiDoor(FakeEngine().info, ServerConfig(), {})  # pyright: ignore[reportArgumentType]
        self.told: list[dict[str, Any]] = []
        self.sent: list[str] = []  # all that the user said and showed
        self.seen: list[tuple[str, str]] = []  # what the model had before the newest reply
        self.active = False
        self.say(setup={"model": "models/any", **setup})
        assert "sessionId" in self.told[0]["setupComplete"]

    def say(self, **message: Any) -> None:
        self._pass(self.door.hear(json.dumps(message)))
        self.work()

    def _pass(self, parts: Iterable[Any]) -> None:
        for part in list(parts):
            if isinstance(part, c.KeepConnection):
                super()._pass(self.door.tell(c.ConnectionKept(token="token", seconds=30.0)))
            else:
                super()._pass([part])

    def _tell(self, frame: bytes) -> None:
        self.told.append(json.loads(frame))

    def _asked(self, stream: SteppedStream, ref: Any) -> None:
        assert not stream.busy, "expected no question while another waits or is answered"
        stream.seq += 1
        stream.asked.append(stream.seq)

    def words(self, item: Any) -> str:
        return item.text if isinstance(item, Text) else "sound" if isinstance(item, AudioChunk) else "picture"

    def waits(self, stream: SteppedStream) -> bool:
        return stream.reply is not None  # a question that waits is answered with all that comes until then

    def step(self, choice: int) -> bool:
        """One step of a reply; False where none runs or waits."""
        busy = [(channel, stream) for channel, stream in self.streams.items() if stream.busy]
        if not busy:
            return False
        ((channel, stream),) = busy
        if stream.reply is None:
            stream.reply, stream.replies = [], stream.replies + 1
            self.seen = list(stream.said)
            self.emit(channel, ReplyStarted(stream.replies, stream.asked.pop(0)))
        elif stream.cut:
            self.finish(channel, stream, "interrupted")
        elif len(stream.reply) > choice % 4:
            if choice == 7 and self.requests[-1].tools:
                self.token(channel, stream, CALL)
            self.finish(channel, stream, ("stop", "length")[choice % 2])
        else:
            self.token(channel, stream, f"w{choice} ")
        return True

    def finish(self, channel: int, stream: SteppedStream, reason: str) -> None:
        reply, stream.reply, stream.cut = stream.reply or [], None, False
        stream.said += [("assistant", "".join(reply)), *stream.waits]
        stream.waits = []
        self.emit(channel, ReplyDone(stream.replies, reason, len(reply), rows=9))

    def speak(self) -> None:
        """Somebody speaks; the stream does what it was told to."""
        self.say(realtimeInput={"audio": {"data": SOUND, "mimeType": "audio/pcm"}})
        found = self.listening()
        if not found:
            return
        ((channel, stream),) = found
        assert stream.listens is not None
        stream.turns += 1
        self.emit(channel, SpeechStarted(stream.turns, 1, 0, "energy"))
        if stream.listens.interrupt and stream.busy:
            stream.cut = True
            while stream.busy:
                self.step(0)
        if channel not in self.streams:
            return  # the stream that heard it has gone: another one hears it
        self.sent.append("sound")
        stream.seq += 1
        stream.put(("user", "sound"), self.waits(stream))
        if stream.listens.respond:
            stream.asked.append(stream.seq)
        self.emit(channel, SpeechStopped(stream.turns, stream.seq, 900_000, "silence"))

    @property
    def pending(self) -> list[str]:
        """The ids of the calls that wait, as the client knows them."""
        ids: list[str] = []
        for message in self.told:
            ids += [call["id"] for call in message.get("toolCall", {}).get("functionCalls", [])]
            ids = [id for id in ids if id not in message.get("toolCallCancellation", {}).get("ids", [])]
        return [id for id in ids if id not in self.returned]

    returned: frozenset[str] = frozenset()

    def give_back(self, ids: list[str]) -> None:
        self.returned |= frozenset(ids)
        responses = [{"id": id, "name": "look", "response": {"output": id}} for id in ids]
        self.say(tool_response={"function_responses": responses})
