"""Nothing that a client says on `/v1/realtime` breaks its session: each message has an answer, or means something."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_room import RealtimeRoom
from test_realtime_orders import message

PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}
SOUND = {"type": "input_audio", "audio": "AAAA" * 480, "transcript": "a word"}
CALL = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "red"}
LOOK = {"type": "function", "name": "look", "description": "looks", "parameters": {"type": "object"}}
VAD = {
    "type": "server_vad",
    "threshold": 0.8,
    "silence_duration_ms": 300,
    "create_response": False,
    "idle_timeout_ms": 1,
}
EAGER = {"type": "semantic_vad", "eagerness": "low", "interrupt_response": True}
SESSION = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "instructions": "Be short.",
    "tools": [LOOK],
    "tool_choice": {"type": "function", "name": "look"},
    "max_output_tokens": "inf",
    "truncation": {"type": "retention_ratio", "retention_ratio": 0.5},
    "penstock": {"format": "live", "seen": True, "rest": True},
}
RESPONSE = {
    "conversation": "none",
    "input": [message("user", "Hello"), {"type": "item_reference", "id": "a"}],
    "instructions": "Be short.",
    "max_output_tokens": 5,
    "metadata": {"a": "b"},
    "output_modalities": ["text"],
    "tools": [],
    "tool_choice": "auto",
}
GOOD: list[dict[str, Any]] = [
    {"type": "session.update", "event_id": "e", "session": SESSION},
    {
        "type": "session.update",
        "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": VAD}}},
    },
    {"type": "session.update", "session": {"audio": {"input": {"turn_detection": EAGER, "noise_reduction": None}}}},
    {"type": "input_audio_buffer.append", "audio": "AAAA" * 1600},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "conversation.item.create", "item": {**message("user", "Hello", id="a"), "content": [PICTURE, SOUND]}},
    {"type": "conversation.item.create", "previous_item_id": "root", "item": message("system", "Hello", id="b")},
    {"type": "conversation.item.create", "item": CALL},
    {"type": "conversation.item.create", "item": OUTPUT},
    {"type": "conversation.item.retrieve", "item_id": "a"},
    {"type": "conversation.item.delete", "item_id": "b"},
    {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 5},
    {"type": "response.create", "response": {"conversation": "auto"}},
    {"type": "response.create", "response": RESPONSE},
    {"type": "response.cancel", "response_id": "r"},
    {"type": "output_audio_buffer.clear"},
]
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=6), st.just("\ud800")
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in an event a value stands."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


PLACES = [(number, path) for number, event in enumerate(GOOD) for path in places(event)]


def changed(place: tuple[int, tuple[Any, ...]], value: Any, good: list[dict[str, Any]] = GOOD) -> dict[str, Any]:
    """A good event with another value in one place."""
    number, path = place
    event = inner = copy.deepcopy(good[number])
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return event


wrong = st.builds(changed, st.sampled_from(PLACES), values)


@settings(max_examples=100)
@given(st.lists(st.one_of(wrong, wrong, st.sampled_from(GOOD), values), min_size=5, max_size=20))
def test_no_message_breaks_a_session(said: list[Any]) -> None:
    room = RealtimeRoom()
    for each in said:
        room._hear(room.door.hear(json.dumps(each)))
        room.step(1)
    for nonsense in ("", "{", "[]", "null", '{"type": 5}', b"\x00\xff", '{"type": "session.update"}'):
        before = len(room.told)
        room._hear(room.door.hear(nonsense))
        assert room.told[before]["type"] == "error"
    while room.step(0):
        pass
    done = [event["type"] for event in room.told if event["type"] in ("response.created", "response.done")]
    assert done.count("response.created") == done.count("response.done")
    room.say("conversation.item.create", item=message("user", "Are you there?"))
    assert room.told[-1]["type"] == "conversation.item.done"


@pytest.mark.parametrize("depth", [99, 200, 700, 960, 990, 100_000])
@pytest.mark.parametrize("field", ["tools", "response", "audio"])
def test_what_lies_too_deep_is_refused(field: str, depth: int) -> None:
    """Said twice: the second time what was kept is copied."""
    room = RealtimeRoom()
    deep = "[" * (depth - 4) + "]" * (depth - 4)
    tool = f'{json.dumps(LOOK)[:-1]}, "x": {deep}}}'
    event = {
        "tools": f'{{"type": "session.update", "session": {{"tools": [{tool}]}}}}',
        "response": f'{{"type": "response.create", "response": {{"conversation": "none", "tools": [{tool}]}}}}',
        "audio": f'{{"type": "session.update", "session": {{"audio": {{"input": {{"noise_reduction": {deep}}}}}}}}}',
    }[field]
    for _ in range(2):
        before = len(room.told)
        room._hear(room.door.hear(event))
        kind = room.told[before]["type"]
        assert kind == ("error" if depth > 99 else "response.created" if field == "response" else "session.updated")
    while room.step(0):
        pass
