"""What a `session.update` and a `response.create` of `/v1/realtime` say, and what is in force of it."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
from fake_engine import FakeEngine
from penstock.server.config import ServerConfig
from penstock.server.doors.realtime.door import RealtimeDoor
from penstock.streams.listening import detectors
from realtime_room import RealtimeRoom
from test_realtime_orders import message

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
PLACE = "session.audio.input.turn_detection"


class SettingsRoom(RealtimeRoom):
    """`turn_model`: the file of the model that hears whether somebody has finished."""

    def __init__(self, turn_model: str | None = None) -> None:
        super().__init__()
        info = msgspec.structs.replace(FakeEngine().info, turn_model=turn_model)
        self.door = RealtimeDoor(info, ServerConfig(), {})  # pyright: ignore[reportArgumentType]

    def update(self, **session: Any) -> dict[str, Any]:
        """What is in force then, or the error."""
        self.say("session.update", session={"type": "realtime", **session})
        return self.told[-1].get("session") or self.told[-1]["error"]

    def heard(self, **heard: Any) -> dict[str, Any]:
        told = self.update(audio={"input": heard})
        return told["audio"]["input"] if "audio" in told else told


@pytest.fixture
def semantic(monkeypatch: pytest.MonkeyPatch) -> SettingsRoom:
    """With a model that hears whether somebody has finished."""
    monkeypatch.setattr(detectors, "can_run", lambda: True)
    return SettingsRoom("smart-turn.onnx")


def test_updates_merge_deeply() -> None:
    room = SettingsRoom()
    assert room.told[0]["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert room.heard(turn_detection={"threshold": 0.8})["turn_detection"]["silence_duration_ms"] == 500
    heard = room.heard(turn_detection={"silence_duration_ms": 300}, transcription={"model": "gpt-4o-mini-transcribe"})
    assert heard["turn_detection"]["threshold"] == 0.8 and heard["transcription"] is None
    assert room.heard(format={"type": "audio/pcmu"}) == {**heard, "format": {"type": "audio/pcmu"}}
    assert room.heard(turn_detection=None)["turn_detection"] is None
    assert room.heard()["turn_detection"] is None
    assert room.heard(format={"type": "audio/pcm", "rate": 8})["param"] == "session.audio.input.format"


def test_semantic_vad_is_that_of_the_engine(semantic: SettingsRoom) -> None:
    known = {"type": "semantic_vad", "create_response": True, "interrupt_response": True}
    assert semantic.heard(turn_detection={"type": "semantic_vad"})["turn_detection"] == {**known, "eagerness": "auto"}
    assert semantic.heard(turn_detection={"eagerness": "low"})["turn_detection"] == {**known, "eagerness": "low"}
    semantic.say("input_audio_buffer.append", audio="AAAAAAAA")
    ((_, stream),) = semantic.listening()
    assert stream.listens is not None and stream.listens.semantic == "low"
    refused = semantic.heard(turn_detection={"silence_duration_ms": 300})
    assert refused["param"] == f"{PLACE}.silence_duration_ms" and "semantic_vad" in refused["message"]
    back = semantic.heard(turn_detection={"type": "server_vad", "create_response": False})["turn_detection"]
    assert (back["type"], back["silence_duration_ms"], back["create_response"]) == ("server_vad", 500, False)


@pytest.mark.parametrize("file", [None, "smart-turn.onnx"])
def test_where_nothing_hears_ends_the_client_is_told_what_it_has(
    file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the weights, and without the package that runs them."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(detectors, "can_run", lambda: file is None)
    room = SettingsRoom(file)
    for eagerness, most in (("low", 2000), ("auto", 1000), ("high", 500)):
        told = room.heard(turn_detection={"type": "semantic_vad", "eagerness": eagerness})["turn_detection"]
        assert told["type"] == "server_vad" and told["silence_duration_ms"] == most
    room.say("input_audio_buffer.append", audio="AAAAAAAA")
    ((_, stream),) = room.listening()
    assert stream.listens is not None and stream.listens.semantic is None and stream.listens.silence_ms == 500
    assert room.heard(turn_detection={"eagerness": "low"})["param"] == f"{PLACE}.eagerness"


@pytest.mark.parametrize(
    ("session", "place", "code"),
    [
        ({"max_response_output_tokens": 5}, "session.max_response_output_tokens", "unknown_parameter"),
        ({"audio": {"inputs": {}}}, "session.audio.inputs", "unknown_parameter"),
        ({"audio": {"output": {"speech": 1}}}, "session.audio.output.speech", "unknown_parameter"),
        ({"audio": {"input": {"vad": None}}}, "session.audio.input.vad", "unknown_parameter"),
        ({"audio": {"input": {"turn_detection": {"treshold": 1}}}}, f"{PLACE}.treshold", "unknown_parameter"),
        ({"audio": {"input": {"turn_detection": {"type": ["server_vad"]}}}}, f"{PLACE}.type", "invalid_value"),
        ({"audio": {"input": {"turn_detection": {"threshold": "high"}}}}, f"{PLACE}.threshold", "invalid_value"),
        ({"truncation": "sometimes"}, "session.truncation", "invalid_value"),
        ({"prompt": {"id": "pmpt_1"}}, "session.prompt", "invalid_value"),
        ({"tools": [{**LOOK, "parameters": 5}]}, "session.tools[0].parameters", "invalid_value"),
    ],
)
def test_what_this_api_does_not_have_is_refused_with_its_place(session: dict[str, Any], place: str, code: str) -> None:
    room = SettingsRoom()
    before = room.update()
    refused = room.update(instructions="Be short.", **session)
    assert (refused["param"], refused["code"]) == (place, code)
    assert room.update() == before


@pytest.mark.parametrize(
    ("event", "place"),
    [
        ({"type": "response.create", "response": {"temperature": 1}}, "response"),
        ({"type": "conversation.item.create", "item": {**message("user", "Hi"), "name": "x"}}, "item"),
        ({"type": "conversation.item.delete", "item_id": "a", "at": 1}, None),
    ],
)
def test_fields_of_events_that_are_not_known_are_refused(event: dict[str, Any], place: str | None) -> None:
    room = SettingsRoom()
    room.say(event.pop("type"), event_id="mine", **event)
    error = room.told[-1]["error"]
    assert (error["code"], error["event_id"], error["param"]) == ("unknown_parameter", "mine", place)


def test_what_a_client_shows_again_is_taken() -> None:
    """A session and an item as the server has shown them."""
    room = SettingsRoom()
    room.update(**{name: value for name, value in room.told[0]["session"].items() if name != "type"})
    assert room.told[-1]["type"] == "session.updated"
    room.say("conversation.item.create", item=message("user", "Hi"))
    room.say("conversation.item.create", item={**room.told[-1]["item"], "id": "again"})
    assert room.told[-1]["type"] == "conversation.item.done"


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "name": "look"}])
def test_a_response_may_call_what_the_session_does_not(choice: Any) -> None:
    room = SettingsRoom()
    room.update(tools=[LOOK], tool_choice="none")
    room.say("conversation.item.create", item=message("user", "What is there?"))
    room.say("response.create", response={"tool_choice": choice})
    (tool,) = room.requests[-1].tools
    assert tool["function"]["name"] == "look"
    assert (room.requests[-1].params.structured is None) == (choice == "auto")
    while room.step(0):
        pass
    room.say("response.create")
    assert not room.requests[-1].tools


def lines_of(room: RealtimeRoom, item: dict[str, Any]) -> int:
    """How many lines of the door one event takes."""
    count = 0

    def trace(frame: Any, what: str, _: Any) -> Any:
        nonlocal count
        count += what == "line"
        return trace if "realtime" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        list(room.door.hear(msgspec.json.encode({"type": "conversation.item.create", "item": item}).decode()))
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("tools", [[], [LOOK]])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_an_item_costs_the_same_in_a_long_conversation(tools: list[Any], role: str) -> None:
    room = SettingsRoom()
    room.update(tools=tools)
    room.say("conversation.item.create", item=message("user", "Hi"))
    room.say("conversation.item.create", item=message(role, "Hi"))
    counts = [lines_of(room, message("user", "Hi")) for _ in range(500)]
    assert counts[400] == counts[20]


def test_only_the_newest_media_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.server.doors.realtime import items

    monkeypatch.setattr(items, "KEPT_BYTES", 2000)
    room = SettingsRoom()
    part = {"type": "input_audio", "audio": "AAAA" * 480}  # 1440 bytes
    for id in "abc":
        item = {"type": "message", "role": "user", "id": id, "content": [part]}
        room.say("conversation.item.create", item=item)
        if id == "b":
            room.say("conversation.item.delete", item_id="b")
    room.say("conversation.item.retrieve", item_id="c")
    assert room.told[-1]["item"]["content"][0]["audio"] == part["audio"]
    room.say("conversation.item.retrieve", item_id="a")
    assert room.told[-1]["error"]["code"] == "item_not_kept"
