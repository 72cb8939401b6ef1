"""The door of `/v1/realtime` without a socket and without an engine, under what clients and engines do in any order.

The laws: no event is outside OpenAI's; every `response.created` has one `response.done`, and between them the order
holds; and what the model gets before a response is the conversation as the client knows it then.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from penstock.server import commands as c
from penstock.streams.event import (
    Closed,
    Error,
    ReplyDone,
    ReplyStarted,
    SpeechStarted,
    SpeechStopped,
    Token,
)
from pydantic import TypeAdapter
from realtime_room import RealtimeRoom

ADAPTER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
FACTS = c.StreamFacts(id=1, format="turns", why="asked for", trained=False)
Said = tuple[str, str]  # a role and words


def message(role: str, *texts: str, **more: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text} for text in texts], **more}


numbers = st.integers(0, 7)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("user"), numbers),
        st.tuples(st.just("picture"), numbers),
        st.tuples(st.sampled_from(["assistant", "system"]), numbers),
        st.tuples(st.just("between"), numbers),
        st.tuples(st.just("delete"), numbers),
        st.tuples(st.sampled_from(["respond", "respond", "aside", "input", "cancel", "instruct"]), numbers),
        st.tuples(st.sampled_from(["step", "step", "step"]), numbers),
        st.tuples(st.sampled_from(["break", "nonsense", "commit"]), numbers),
    ),
    min_size=8,
    max_size=40,
)


def carry_out(room: RealtimeRoom, what: str, number: int) -> None:
    match what:
        case "user" | "assistant" | "system":
            room.say("conversation.item.create", item=message(what, f"{what} {number}"))
        case "picture":
            part = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
            room.say("conversation.item.create", item={"type": "message", "role": "user", "content": [part]})
        case "between":
            after = room.ids[number % len(room.ids)] if room.ids and number else "root"
            room.say("conversation.item.create", item=message("user", f"between {number}"), previous_item_id=after)
        case "delete":
            room.say("conversation.item.delete", item_id=room.ids[number % len(room.ids)] if room.ids else "none")
        case "respond":
            room.say("response.create", response={"metadata": {"n": str(number)}})
        case "aside":
            room.say("response.create", response={"conversation": "none"})
        case "input":
            room.alone = True
            room.say("response.create", response={"conversation": "none", "input": [message("user", "alone")]})
            room.alone = False
        case "cancel":
            room.say("response.cancel")
        case "instruct":
            room.say("session.update", session={"type": "realtime", "instructions": f"Do {number}."})
        case "step":
            room.step(number)
        case "break":
            for channel in list(room.streams)[:1] if number == 7 else ():
                del room.streams[channel]
                room.emit(channel, Error("not_finite", "broken", None, True))
                room.emit(channel, Closed("error"))
                room.session.ended(channel)
                room.work()
        case "nonsense":
            room.say(f"response.sing{number}", event_id="x")
            assert room.told[-1]["error"]["event_id"] == "x"
        case "commit":
            room.say("input_audio_buffer.commit")


def check(room: RealtimeRoom) -> None:
    """The laws, once nothing runs any more."""
    created = [event["response"]["id"] for event in room.told if event["type"] == "response.created"]
    done = [event["response"] for event in room.told if event["type"] == "response.done"]
    assert sorted(created) == sorted(response["id"] for response in done)
    for response in done:
        told = [event for event in room.told if event.get("response_id", "") == response["id"]]
        kinds = [event["type"].removeprefix("response.") for event in told if "delta" not in event["type"]]
        if kinds:
            a, z = ["output_item.added", "content_part.added"], ["output_text.done", "content_part.done"]
            assert kinds == [*a, *z, "output_item.done"]
            deltas = "".join(event.get("delta", "") for event in told)
            assert deltas == response["output"][0]["content"][0]["text"]
    for id, expected in room.expected.items():
        said = room.seen.get(id)
        assert said is None or [one for one in said if one != ("user", "")] == expected


@settings(max_examples=60)
@given(steps)
@example([("user", 1), ("instruct", 2), ("respond", 1)])
def test_any_order_keeps_the_laws(done: list[tuple[str, int]]) -> None:
    room = RealtimeRoom()
    for what, number in done:
        carry_out(room, what, number)
    while room.step(0):
        pass
    check(room)
    room.say("conversation.item.create", item=message("user", "Are you there?"))
    assert room.told[-1]["type"] == "conversation.item.done"


def test_speech_has_its_order() -> None:
    """The stream hears speech, cuts the response, and answers by itself; the client is told in OpenAI's order."""
    room = RealtimeRoom()
    room.say("conversation.item.create", item=message("user", "Hello"))
    room.say("response.create")
    room.step(3)
    room.step(3)
    second = base64.b64encode(bytes(48_000)).decode()
    room.say("input_audio_buffer.append", audio=second)
    ((channel, stream),) = room.listening()
    assert stream.listens is not None and stream.listens.respond and stream.listens.interrupt
    room.told.clear()
    room.emit(channel, SpeechStarted(1, 3, 200_000, "energy"))
    room.finish(channel, stream, "interrupted")
    room.say("input_audio_buffer.append", audio=second)
    room.emit(channel, SpeechStopped(1, 4, 1_500_000, "silence"))
    stream.asked.append(4)
    for choice in (0, 1, 0):
        room.step(choice)
    kinds = [event["type"].replace("input_audio_buffer", "sound") for event in room.told]
    first = kinds.index("response.done")
    assert kinds[0] == "sound.speech_started" and "sound.speech_stopped" not in kinds[:first]
    assert kinds[first + 1 : first + 6] == [
        "sound.speech_stopped",
        "sound.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    assert room.told[first]["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    start, stop, committed = room.told[0], room.told[first + 1], room.told[first + 2]
    assert (start["audio_start_ms"], stop["audio_end_ms"]) == (200, 1500)
    assert start["item_id"] == stop["item_id"] == committed["item_id"]
    room.say("conversation.item.retrieve", item_id=committed["item_id"])
    assert len(base64.b64decode(room.told[-1]["item"]["content"][0]["audio"])) == 1300 * 48


def test_speech_is_answered_where_only_a_prompt_holds_the_past() -> None:
    """A client brings turns along, as one does that connects again: the stream only listens, and each turn that it
    hears is answered with all that was before."""
    room = RealtimeRoom()
    room.say("conversation.item.create", item=message("user", "My name is Ann."))
    room.say("conversation.item.create", item=message("assistant", "Hello, Ann."))
    room.say("input_audio_buffer.append", audio=base64.b64encode(bytes(48_000)).decode())
    ((channel, stream),) = room.listening()
    assert stream.listens is not None and not stream.listens.respond
    room.emit(channel, SpeechStarted(1, 1, 0, "energy"))
    room.emit(channel, SpeechStopped(1, 2, 900_000, "silence"))
    assert room.told[-1]["type"] == "response.created"
    assert list(room.seen.values())[-1] == [
        ("user", "My name is Ann."),
        ("assistant", "Hello, Ann."),
        ("user", "audio"),
    ]
    ((_, stream),) = room.listening()
    assert stream.listens is not None and stream.listens.respond
    while room.step(0):
        pass
    assert room.told[-1]["response"]["status"] == "completed"


def test_functions_are_called_and_their_outputs_come_back() -> None:
    room = RealtimeRoom()
    look = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
    room.say("session.update", session={"type": "realtime", "tools": [look]})
    room.say("conversation.item.create", item=message("user", "What is there?"))
    room.say("response.create")
    assert room.requests[-1].tools[0]["function"]["name"] == "look"  # pyright: ignore
    ((channel, stream),) = room.streams.items()
    call = ["I look. ", "<tool_", 'call>{"name": "look", "argu', 'ments": {"at": 1}}</tool_call>']
    stream.asked.pop(0)
    room.emit(channel, ReplyStarted(1, 1))
    for index, words in enumerate(call):
        room.emit(channel, Token(1, index, 1, words, None))
    room.told.clear()
    room.emit(channel, ReplyDone(1, "stop", 4, rows=9))
    response = room.told[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]
    called = response["output"][1]
    assert (called["name"], json.loads(called["arguments"])) == ("look", {"at": 1})
    kinds = [event["type"] for event in room.told]
    assert kinds == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    output = {"type": "function_call_output", "call_id": called["call_id"], "output": "A red square."}
    room.say("conversation.item.create", item=output)
    assert room.told[-1]["type"] == "conversation.item.done"
    room.say("response.create")
    messages = room.requests[-1].messages or []
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert messages[1]["tool_calls"][0]["function"] == {"name": "look", "arguments": {"at": 1}}
    assert messages[2]["content"] == "A red square." and messages[2]["tool_call_id"] == called["call_id"]


@pytest.mark.parametrize("name", ["mulaw", "alaw"])
def test_g711_is_what_ffmpeg_decodes(name: str) -> None:
    import av
    import numpy as np
    from penstock.server.doors.realtime.sound import FORMATS

    codes = bytes(range(256))
    decoder = av.CodecContext.create(f"pcm_{name}", "r")
    decoder.sample_rate, decoder.layout = 8000, "mono"  # pyright: ignore[reportAttributeAccessIssue]
    (frame,) = decoder.decode(av.Packet(codes))  # pyright: ignore[reportAttributeAccessIssue]
    chunk = FORMATS["audio/pcmu" if name == "mulaw" else "audio/pcma"].chunk(codes)
    assert np.array_equal(np.frombuffer(chunk.data, "<i2"), frame.to_ndarray().ravel()) and chunk.rate == 8000
