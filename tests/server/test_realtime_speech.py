"""Speech on `/v1/realtime` without a socket and without an engine: what the stream hears, at the times of the one clock
of all sound that the client has sent, and what the client is told of it.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from door_room import SteppedStream
from penstock.server import commands as c
from penstock.server.session import Session
from penstock.streams.event import Appended, Closed, Dropped, Error, SpeechStarted, SpeechStopped
from penstock.streams.item import AudioChunk
from realtime_room import RealtimeRoom
from test_realtime_orders import message

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


class SpeechRoom(RealtimeRoom):
    """`sounds`: the sound that streams got, with its time in milliseconds."""

    def __init__(self, **query: str) -> None:
        self.sounds: list[tuple[int, int]] = []
        super().__init__(**query)

    def _carry(self, action: c.Carry) -> None:
        match action.command:
            case c.AppendItem(item=AudioChunk(pts_us=int(pts_us)) as item):
                self.sounds.append((pts_us // 1000, len(item.data) // 48))
        super()._carry(action)

    def sound(self, ms: int, code: int = 0, **more: Any) -> None:
        audio = base64.b64encode(bytes([code]) * (48 * ms)).decode()
        self.say("input_audio_buffer.append", audio=audio, **more)

    def detect(self, detection: dict[str, Any] | None) -> None:
        self.say("session.update", session={"audio": {"input": {"turn_detection": detection}}})

    def starts(self, at_ms: int) -> None:
        ((channel, stream),) = self.listening()
        stream.turns += 1
        self.emit(channel, SpeechStarted(stream.turns, stream.seq, at_ms * 1000, "energy"))

    def stops(self, at_ms: int, reason: str = "silence") -> None:
        ((channel, stream),) = self.listening()
        self.emit(channel, SpeechStopped(stream.turns, stream.seq, at_ms * 1000, reason))
        if stream.listens is not None and stream.listens.respond:
            stream.asked.append(stream.seq)

    def last(self, kind: str) -> dict[str, Any]:
        return next(event for event in reversed(self.told) if event["type"].endswith(kind))

    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("input_audio_buffer.") for event in self.told]

    def kept(self, id: str) -> bytes:
        self.say("conversation.item.retrieve", item_id=id)
        return b"".join(base64.b64decode(part["audio"]) for part in self.told[-1]["item"]["content"])


def listener(room: SpeechRoom) -> SteppedStream:
    ((_, stream),) = room.listening()
    return stream


def test_times_count_from_all_sound_of_the_session() -> None:
    """Sound that waited for a commit counts, and what waits when turn detection begins is listened to."""
    room = SpeechRoom()
    room.detect(None)
    room.sound(1000)
    room.say("input_audio_buffer.commit")
    room.sound(500, 1)
    room.detect({"type": "server_vad"})
    room.sound(1000, 2)
    assert room.sounds == [(1000, 500), (1500, 1000)]
    room.starts(1200)
    room.stops(2000)
    assert room.last("speech_started")["audio_start_ms"] == 1200
    assert room.last("speech_stopped")["audio_end_ms"] == 2000
    assert room.kept(room.last("committed")["item_id"]) == bytes([1]) * (48 * 300) + bytes([2]) * (48 * 500)


def test_a_format_that_changes_in_mid_speech_loses_no_sound() -> None:
    room = SpeechRoom()
    room.sound(1000, 1)
    room.starts(500)
    room.say("session.update", session={"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    room.say("input_audio_buffer.append", audio=base64.b64encode(bytes(8_000)).decode())
    room.stops(1500)
    assert room.kept(room.last("committed")["item_id"]) == bytes([1]) * 24_000 + bytes(4_000)


def test_a_stream_that_is_late_has_the_sound_of_its_item() -> None:
    """A client that sends a minute at once: speech is told long after its sound has come."""
    room = SpeechRoom()
    for second in range(60):
        room.sound(1000, second)
    room.starts(5000)
    room.stops(6000)
    assert room.kept(room.last("committed")["item_id"]) == bytes([5]) * 48_000
    ((channel, _),) = room.listening()
    room.emit(channel, Dropped(1, "audio", 1, 6_000_000, 50_000_000, "silence"))
    room.starts(55_000)
    room.stops(56_000)
    assert room.kept(room.last("committed")["item_id"]) == bytes([55]) * 48_000


def test_a_commit_in_mid_speech_begins_another_item_at_once() -> None:
    room = SpeechRoom()
    room.sound(1000, 1)
    room.starts(200)
    first = room.last("speech_started")["item_id"]
    room.told.clear()
    room.say("input_audio_buffer.commit")
    assert room.kinds() == ["committed", "conversation.item.added", "conversation.item.done", "speech_started"]
    second = room.told[-1]
    assert room.told[0]["item_id"] == first != second["item_id"] and second["audio_start_ms"] == 1000
    room.say("input_audio_buffer.commit", event_id="again")
    assert room.told[-1]["error"]["code"] == "input_audio_buffer_commit_empty"
    assert room.told[-1]["error"]["event_id"] == "again"
    room.sound(1000, 2)
    room.told.clear()
    room.stops(1800)
    assert room.kinds()[:4] == ["speech_stopped", "committed", "conversation.item.added", "conversation.item.done"]
    assert room.told[0]["item_id"] == room.told[1]["item_id"] == second["item_id"]
    assert room.told[1]["previous_item_id"] == first
    assert room.kept(first) == bytes([1]) * (48 * 800) and room.kept(second["item_id"]) == bytes([2]) * (48 * 800)
    room.step(0)
    assert room.last("response.created")


def test_the_stop_of_what_was_committed_meanwhile_commits_nothing() -> None:
    room = SpeechRoom()
    room.sound(1000)
    room.starts(200)
    room.say("input_audio_buffer.commit")
    room.told.clear()
    room.stops(900)
    assert room.kinds() == ["speech_stopped"]
    room.sound(1000)
    room.starts(1500)
    assert room.kinds()[-1] == "speech_started"


def test_who_speaks_on_after_a_clear_is_heard_from_there() -> None:
    room = SpeechRoom()
    room.sound(1000, 1)
    room.starts(200)
    id = room.last("speech_started")["item_id"]
    room.say("input_audio_buffer.clear")
    assert not (listener(room).listens or pytest.fail("it listens")).respond
    room.sound(1000, 2)
    room.stops(1500)
    assert room.last("committed")["item_id"] == id and room.kept(id) == bytes([2]) * (48 * 500)
    assert [said for _, said in list(room.seen.values())[-1]] == ["audio"]


def test_the_id_of_what_is_being_said_is_taken() -> None:
    room = SpeechRoom()
    room.sound(1000)
    room.starts(200)
    id = room.last("speech_started")["item_id"]
    room.say("conversation.item.create", item=message("user", "Me", id=id))
    assert room.told[-1]["error"]["param"] == "item.id"
    room.stops(900)
    assert room.last("committed")["item_id"] == id


def test_long_silence_is_told_as_a_timeout_and_answered() -> None:
    room = SpeechRoom()
    room.detect({"idle_timeout_ms": 5000})
    for _ in range(6):
        room.sound(1000)
    assert (listener(room).listens or pytest.fail("it listens")).idle_ms == 5000
    room.told.clear()
    listener(room).turns += 1
    room.stops(5024, "idle")
    kinds = ["timeout_triggered", "committed", "conversation.item.added", "conversation.item.done"]
    assert room.kinds() == kinds
    told = room.told[0]
    assert (told["audio_start_ms"], told["audio_end_ms"]) == (24, 5024)
    assert told["item_id"] == room.told[1]["item_id"] and len(room.kept(told["item_id"])) == 300 * 48
    room.step(0)
    assert room.last("response.created")
    room.detect({"create_response": False})
    assert (listener(room).listens or pytest.fail("it listens")).idle_ms is None


def test_a_stream_that_takes_the_place_of_another_hears_what_is_being_said() -> None:
    """Other instructions in mid-speech: the response begins a new stream, which hears the sound from the start of
    speech; the client is told of one start."""
    room = SpeechRoom()
    room.say("conversation.item.create", item=message("user", "Hello"))
    room.sound(1000)
    room.starts(400)
    id = room.last("speech_started")["item_id"]
    room.say("session.update", session={"instructions": "Be short."})
    room.sounds.clear()
    room.say("response.create")
    assert room.sounds == [(400, 600)]
    room.told.clear()
    room.starts(400)
    room.sound(500)
    room.step(3)
    assert "speech_started" not in room.kinds()
    room.stops(1400)
    assert room.last("speech_stopped")["item_id"] == id == room.last("committed")["item_id"]
    while room.step(0):
        pass


def test_what_a_new_stream_takes_for_no_speech_is_told_to_have_stopped() -> None:
    room = SpeechRoom()
    room.say("conversation.item.create", item=message("user", "Hello"))
    room.sound(1000)
    room.starts(400)
    first = room.last("speech_started")["item_id"]
    room.say("session.update", session={"instructions": "Be short."})
    room.say("response.create")
    room.sound(3000)
    room.told.clear()
    room.starts(2000)
    assert room.kinds() == ["speech_stopped", "speech_started"] and room.told[0]["item_id"] == first
    assert room.told[1]["item_id"] != first and room.told[1]["audio_start_ms"] == 2000


@pytest.mark.parametrize("fatal", [True, False])
def test_a_stream_that_breaks_in_mid_speech_leaves_what_was_said(fatal: bool) -> None:
    room = SpeechRoom()
    room.sound(1000, 1)
    room.starts(200)
    ((channel, _),) = room.listening()
    del room.streams[channel]
    if fatal:
        room.emit(channel, Error("not_finite", "broken", None, True))
    room.emit(channel, Closed("error"))
    room.session.ended(channel)
    room.work()
    assert room.kinds()[-4:] == ["speech_stopped", "committed", "conversation.item.added", "conversation.item.done"]
    room.sound(1000, 2)
    room.say("response.create")
    assert list(room.seen.values())[-1][0] == ("user", "audio")


def test_replies_by_voice_are_drawn_as_the_session_says() -> None:
    """The stream begins a reply by itself only where it would be drawn so."""
    room = SpeechRoom()
    room.say("session.update", session={"max_output_tokens": 7})
    room.sound(1000)
    assert room.requests[-1].params.max_tokens == 7
    assert (listener(room).listens or pytest.fail("it listens")).respond
    room.say("session.update", session={"max_output_tokens": 9})
    assert not (listener(room).listens or pytest.fail("it listens")).respond
    room.starts(200)
    room.stops(900)
    assert room.last("response.created")["response"]["max_output_tokens"] == 9


@pytest.mark.parametrize("interrupts", [True, False])
def test_who_speaks_cuts_a_response_to_its_own_input(interrupts: bool) -> None:
    room = SpeechRoom()
    room.detect({"interrupt_response": interrupts})
    room.sound(1000)
    room.say("response.create", response={"input": [message("user", "Count to nine.")]})
    room.say("response.create", response={"conversation": "none", "input": [message("user", "What is this?")]})
    room.step(3)
    room.step(7)
    room.starts(200)
    assert [stream.cut for stream in room.streams.values()] == [False, interrupts, False]
    while room.step(0):
        pass
    reasons = [event["response"]["status_details"] for event in room.told if event["type"] == "response.done"]
    assert ({"type": "cancelled", "reason": "turn_detected"} in reasons) == interrupts


def test_a_response_that_cannot_be_begun_is_an_error_and_no_end() -> None:
    room = SpeechRoom()
    room.say("session.update", session={"tools": [LOOK], "tool_choice": {"type": "function", "name": "sing"}})
    room.sound(1000)
    room.starts(200)
    room.stops(900)
    assert room.told[-1]["error"]["param"] == "tool_choice"
    room.sound(1000)
    room.starts(1200)
    assert room.kinds()[-1] == "speech_started"


def test_what_was_said_while_a_response_runs_is_answered_after_it() -> None:
    """The stream does not reply by itself here, and may not interrupt."""
    room = SpeechRoom()
    room.detect({"interrupt_response": False})
    room.say("conversation.item.create", item=message("user", "My name is Ann."))
    room.say("conversation.item.create", item=message("assistant", "Hello."))
    room.say("conversation.item.create", item=message("user", "Go on."))
    room.say("response.create")
    room.sound(1000)
    room.say("session.update", session={"max_output_tokens": 9})
    room.step(3)
    room.starts(200)
    room.stops(900)
    created = room.kinds().count("response.created")
    while room.kinds().count("response.done") < created:
        room.step(0)
    assert room.kinds().count("response.created") == created + 1


def test_a_stream_that_is_refused_is_one_error_for_each_sound() -> None:
    room = SpeechRoom()
    room.session = Session(max_streams=0, waiting_bytes=1 << 20)
    room.told.clear()
    for id in ("a", "b"):
        room.sound(100, event_id=id)
    assert [event["error"]["event_id"] for event in room.told] == ["a", "b"]
    assert all("streams" in event["error"]["message"] for event in room.told)
    room.session = Session(max_streams=1, waiting_bytes=1 << 20)
    room.told.clear()
    room.sound(100)
    assert not room.told and listener(room)


def test_an_error_about_sound_names_its_event() -> None:
    room = SpeechRoom()
    room.session = Session(max_streams=1, waiting_bytes=1000)
    room.sound(1)
    room.sound(100, event_id="mine")
    assert room.told[-1]["error"]["event_id"] == "mine" and room.told[-1]["error"]["param"] == "audio"


def test_too_little_to_hear_is_refused_and_stays() -> None:
    room = SpeechRoom()
    room.detect(None)
    room.sound(90)
    room.say("input_audio_buffer.commit", event_id="it")
    error = room.told[-1]["error"]
    assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "it")
    assert "at least 100 ms" in error["message"] and "90.00 ms" in error["message"]
    room.sound(10)
    room.say("input_audio_buffer.commit")
    assert len(room.kept(room.last("committed")["item_id"])) == 4800
    part = {"type": "input_audio", "audio": base64.b64encode(bytes(480)).decode()}
    room.say("conversation.item.create", item={"type": "message", "role": "user", "content": [part]})
    assert room.told[-1]["error"]["param"] == "item.content[0].audio"


def test_a_full_stream_is_told_for_each_item_and_once_for_sound() -> None:
    room = SpeechRoom()
    room.sound(1000)
    part = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    for id, content in (
        ("a", [part]),
        ("b", [part, part]),
        ("c", [{"type": "input_text", "text": "?"}]),
        ("d", [part]),
    ):
        item = {"type": "message", "role": "user", "id": id, "content": content}
        room.say("conversation.item.create", item=item, event_id=f"my {id}")
    ((channel, stream),) = room.listening()
    room.told.clear()
    room.emit(channel, Appended(2, "image", None, None, 5, 16, 5))
    room.emit(channel, Appended(3, "image", None, None, 21, 16, 21))
    room.emit(channel, Dropped(6, "image", 2, None, None, "full"))
    assert [event["error"]["event_id"] for event in room.told] == ["my b", "my d"]
    assert {event["error"]["code"] for event in room.told} == {"context_overflow"}
    room.told.clear()
    for _ in range(2):
        room.emit(channel, Dropped(1, "audio", 1, 0, 10, "full"))
    assert [event["error"]["param"] for event in room.told] == ["audio"]


def test_sound_that_is_none_is_refused_or_nothing() -> None:
    room = SpeechRoom()
    for audio, code in (("A", "invalid_value"), ("_-8=", "invalid_value"), ("AAAA", "invalid_value")):
        room.say("input_audio_buffer.append", audio=audio, event_id="it")
        assert (room.told[-1]["error"]["code"], room.told[-1]["error"]["event_id"]) == (code, "it")
    room.told.clear()
    room.say("input_audio_buffer.append", audio="")
    assert not room.told and not room.streams
