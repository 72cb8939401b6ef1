"""A live transcription session without a socket and without an engine: what is refused, and what ends too early."""

from __future__ import annotations

import base64
import json
from typing import Any

from door_room import DoorRoom, SteppedStream
from fake_engine import FakeEngine
from penstock.engine.families.transcription import WORDINGS
from penstock.server.doors.realtime.transcribing import TranscribingDoor
from penstock.server.session import Session
from penstock.streams.event import Closed, Error, ReplyDone, SpeechStarted, SpeechStopped
from realtime_client import ADAPTER

SECOND = base64.b64encode(bytes(48_000)).decode()


class UtteranceRoom(DoorRoom):
    """`told`: the events of the server."""

    def __init__(self, max_streams: int = 8) -> None:
        super().__init__(max_streams)
        self.told: list[dict[str, Any]] = []
        self.door = TranscribingDoor(FakeEngine().info, WORDINGS["qwen2_5_omni"])  # pyright: ignore

    def say(self, kind: str, **fields: Any) -> None:
        self._pass(self.door.hear(json.dumps({"type": kind, **fields})))
        self.work()

    def sound(self, **more: Any) -> None:
        self.say("input_audio_buffer.append", audio=SECOND, **more)

    def hear(self, event: SpeechStarted | SpeechStopped) -> None:
        ((channel, _),) = self.listening()
        self.emit(channel, event)

    def utter(self) -> None:
        """Without turn detection."""
        self.say("session.update", session={"audio": {"input": {"turn_detection": None}}})
        self.sound()
        self.say("input_audio_buffer.commit")

    def break_off(self, channel: int) -> None:
        del self.streams[channel]
        self.emit(channel, Error("not_finite", "broken", None, True))
        self.emit(channel, Closed("error"))
        self.session.ended(channel)
        self.work()

    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("input_audio_buffer.") for event in self.told]

    def _tell(self, frame: bytes) -> None:
        self.told.append(json.loads(frame))
        ADAPTER.validate_python(self.told[-1])

    def _asked(self, stream: SteppedStream, ref: Any) -> None:
        stream.asked.append(1)

    def words(self, item: Any) -> str:
        return "audio"


FAILED = "conversation.item.input_audio_transcription.failed"
SAID = ["committed", "conversation.item.added", "conversation.item.done"]


def test_an_utterance_whose_stream_is_refused_is_told_once_and_the_next_has_its_words() -> None:
    room = UtteranceRoom()
    room.session = Session(max_streams=0, waiting_bytes=1 << 20)
    room.utter()
    assert room.kinds() == ["session.updated", *SAID, FAILED] and "streams" in room.told[-1]["error"]["message"]
    room.session = Session(max_streams=1, waiting_bytes=1 << 20)
    room.told.clear()
    room.utter()
    ((channel, _),) = room.streams.items()
    room.emit(channel, ReplyDone(1, "stop", 1, rows=3))
    assert room.kinds()[-1].endswith("transcription.completed") and not room.streams
    assert "error" not in room.kinds()


def test_an_utterance_whose_stream_breaks_is_told_once() -> None:
    room = UtteranceRoom()
    room.utter()
    room.utter()
    ((channel, _),) = room.streams.items()
    room.break_off(channel)
    assert room.kinds().count(FAILED) == 1 and "error" not in room.kinds()
    ((channel, _),) = room.streams.items()
    room.emit(channel, ReplyDone(1, "stop", 1, rows=3))
    assert room.kinds()[-1].endswith("transcription.completed")


def test_a_stream_to_listen_in_that_is_refused_is_one_error_for_each_sound() -> None:
    room = UtteranceRoom()
    room.session = Session(max_streams=0, waiting_bytes=1 << 20)
    room.sound(event_id="a")
    room.sound(event_id="b")
    assert room.kinds() == ["error", "error"]
    assert [event["error"]["event_id"] for event in room.told] == ["a", "b"]
    room.session = Session(max_streams=2, waiting_bytes=1 << 20)
    room.told.clear()
    room.sound()
    room.hear(SpeechStarted(1, 1, 2_100_000, "energy"))
    room.hear(SpeechStopped(1, 1, 2_900_000, "silence"))
    assert room.kinds() == ["speech_started", "speech_stopped", *SAID]
    assert room.told[0]["audio_start_ms"] == 2100


def test_a_stream_that_breaks_in_mid_speech_leaves_what_was_said() -> None:
    room = UtteranceRoom()
    room.sound()
    room.hear(SpeechStarted(1, 1, 100_000, "energy"))
    ((channel, _),) = room.listening()
    room.break_off(channel)
    assert room.kinds() == ["speech_started", "error", "speech_stopped", *SAID]
    room.sound()
    assert room.kinds().count("error") == 1 and len(room.listening()) == 1


def test_a_commit_in_mid_speech_begins_another_utterance() -> None:
    room = UtteranceRoom()
    room.sound()
    room.hear(SpeechStarted(1, 1, 100_000, "energy"))
    room.say("input_audio_buffer.commit")
    assert room.kinds() == ["speech_started", *SAID, "speech_started"]
    room.sound()
    room.hear(SpeechStopped(1, 1, 1_900_000, "silence"))
    assert room.kinds()[5:] == ["speech_stopped", *SAID]
    assert room.told[6]["item_id"] == room.told[4]["item_id"] != room.told[0]["item_id"]


def test_silence_has_no_words() -> None:
    """`idle_timeout_ms` is for a conversation."""
    room = UtteranceRoom()
    room.say("session.update", session={"audio": {"input": {"turn_detection": {"idle_timeout_ms": 5000}}}})
    assert room.told[-1]["session"]["audio"]["input"]["turn_detection"]["idle_timeout_ms"] is None
    room.sound()
    ((_, stream),) = room.listening()
    assert stream.listens is not None and stream.listens.idle_ms is None
