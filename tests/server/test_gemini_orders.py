"""The door `BidiGenerateContent` without a socket and without an engine, under what both sides do in any order.

The laws: each turn ends once, by `generationComplete` and `turnComplete`, or by `interrupted` and `turnComplete`; no
question is asked while another waits or is answered; and what the model has before the last reply is all that was said,
in order.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from gemini_room import CALL, SOUND, GeminiRoom
from hypothesis import example, given, settings
from hypothesis import strategies as st
from penstock.server.doors.gemini import hearing, history
from penstock.server.doors.gemini.setup import PictureSize, setup_of
from penstock.server.doors.gemini.wire import GeminiFault
from penstock.streams.event import (
    Dropped,
    Error,
    ReplyDone,
    ReplyStarted,
    SpeechStarted,
    SpeechStopped,
)
from penstock.streams.requests.window import Window

LOOK = {"name": "look", "parameters": {"type": "OBJECT", "properties": {"at": {"type": "INTEGER"}}}}
PICTURE = base64.urlsafe_b64encode(b"\xff\xd8\xff\xfb").decode()


def content(words: str, complete: bool, role: str = "user") -> dict[str, Any]:
    return {"turns": [{"role": role, "parts": [{"text": words}]}], "turnComplete": complete}


steps = st.lists(
    st.tuples(
        st.sampled_from("say say add model write show speak activity return step step step step step".split()),
        st.integers(0, 7),
    ),
    max_size=40,
)
SETUPS: list[dict[str, Any]] = [
    {},
    {"tools": [{"functionDeclarations": [LOOK]}]},
    {"realtimeInputConfig": {"activityHandling": "NO_INTERRUPTION"}, "tools": [{"function_declarations": [LOOK]}]},
    {"realtime_input_config": {"automatic_activity_detection": {"disabled": True}}},
]


def carry_out(room: GeminiRoom, what: str, number: int, automatic: bool) -> None:
    words = f"{what} {number} {len(room.sent)} "
    match what:
        case "say" | "add":
            room.sent.append(words)
            room.say(client_content=content(words, what == "say"))
        case "model":
            room.say(clientContent=content("brought ", False, "model"))
        case "write":
            room.sent.append(words)
            room.say(realtimeInput={"text": words})
        case "show":
            room.sent.append("picture")
            room.say(realtimeInput={"video": {"data": PICTURE, "mime_type": "image/jpeg"}})
        case "speak" if automatic:
            room.speak()
        case "activity" if not automatic and (room.active or room.sent):
            room.active = not room.active
            room.say(realtime_input={"activity_start" if room.active else "activityEnd": {}})
        case "return" if room.pending:
            room.give_back(room.pending[: 1 + number % 2])
        case "step":
            room.step(number)


def joined(said: list[str]) -> list[str]:
    """Sounds that follow each other as one, as a prompt has them."""
    return [words for place, words in enumerate(said) if words != "sound" or said[place - 1 : place] != ["sound"]]


def check_turns(told: list[dict[str, Any]]) -> list[str]:
    """Each turn ends once, in the right order; the words of the turns."""
    turns, words, before = [], "", ""
    for message in told:
        served = message.get("serverContent", {})
        if served == {"waitingForInput": True}:
            continue
        if "modelTurn" in served:
            words += served["modelTurn"]["parts"][0]["text"]
            kind = "words"
        else:
            kind = next(iter(served or message))
        if kind == "turnComplete":
            assert before in ("generationComplete", "interrupted"), told[-5:]
            assert "usageMetadata" in message or before == "interrupted"
            turns.append(words)
            words = ""
        else:
            assert before not in ("generationComplete", "interrupted"), told[-5:]
            assert kind != "toolCallCancellation" or before != "words"
        before = kind
    assert not words and before in ("turnComplete", "toolCall", "toolCallCancellation", "setupComplete")
    return turns


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(0, len(SETUPS) - 1))
@example([("say", 0), ("step", 1), ("step", 1), ("show", 1), ("say", 1)], 0)
@example([("say", 0), ("step", 7), *[("step", 7)] * 5, ("show", 0), ("return", 0), ("step", 1)], 1)
@example([("say", 0), *[("step", 7)] * 6, ("speak", 0), ("step", 1)], 2)
def test_any_order_keeps_the_laws(done: list[tuple[str, int]], which: int) -> None:
    room = GeminiRoom(**SETUPS[which])
    for what, number in done:
        carry_out(room, what, number, which != 3)
    while room.step(0):
        pass
    if room.active:
        room.say(realtimeInput={"activityEnd": {}})
    while room.pending:
        room.give_back(room.pending)
        while room.step(0):
            pass
    room.sent.append("end")
    room.say(clientContent=content("end", True))
    assert room.step(0), "expected a reply to the last turn"
    said = [words for role, words in room.seen if role == "user"]
    assert joined(said) == joined(room.sent)
    while room.step(0):
        pass
    turns = [*map(str.split, check_turns(room.told))]
    heard = [re.sub(CALL, "", words).split() for role, words in room.seen if role == "assistant"]
    spoken = [word for words in heard for word in words if word != "brought"]
    assert spoken == [word for words in turns[:-1] for word in words]
    calls = [call["id"] for message in room.told for call in message.get("toolCall", {}).get("functionCalls", [])]
    cancelled = [id for message in room.told for id in message.get("toolCallCancellation", {}).get("ids", [])]
    returned = [words for role, words in room.seen if role == "tool"]
    assert returned == [json.dumps({"output": id}, separators=(",", ":")) for id in calls if id not in cancelled]


def test_speech_cuts_the_turn_and_is_answered() -> None:
    room = GeminiRoom()
    room.say(clientContent=content("Hello", True))
    room.step(3)
    room.step(3)
    room.say(realtimeInput={"audio": {"data": SOUND, "mimeType": "audio/pcm;rate=16000"}})
    ((_, stream),) = room.streams.items()
    assert stream.listens is not None and stream.listens.respond and stream.listens.interrupt
    del room.told[:]
    room.speak()
    assert room.told[0] == {"serverContent": {"interrupted": True}}
    assert room.told[1]["serverContent"] == {"turnComplete": True}
    while room.step(1):
        pass
    assert room.seen == [("user", "Hello"), ("assistant", "w3 "), ("user", "sound")]


def test_a_new_stream_hears_the_speech_that_goes_on() -> None:
    """The history changes while somebody speaks: the stream that holds the new one gets what was said so far."""
    room = GeminiRoom()
    room.say(realtimeInput={"audio": {"data": SOUND, "mimeType": "audio/pcm"}})
    ((channel, _),) = room.streams.items()
    room.emit(channel, SpeechStarted(1, 1, 0, "energy"))
    room.say(clientContent=content("So it is.", False, "model"))
    room.say(clientContent=content("Is it?", True))
    ((other, stream),) = room.streams.items()
    assert other != channel and stream.listens is not None and stream.listens.respond and stream.seq == 2


def test_what_a_client_says_cuts_the_turn() -> None:
    room = GeminiRoom()
    room.say(clientContent=content("Hello", True))
    room.step(3)
    room.step(3)
    room.say(clientContent=content("Stop", True))
    room.step(3)
    assert room.told[-2:] == [
        {"serverContent": {"interrupted": True}},
        {"serverContent": {"turnComplete": True}, "usageMetadata": room.told[-1]["usageMetadata"]},
    ]
    room.step(3)
    assert room.seen == [("user", "Hello"), ("assistant", "w3 "), ("user", "Stop")]


def test_functions_return_into_the_turn() -> None:
    room = GeminiRoom(tools=[{"functionDeclarations": [LOOK]}])
    room.say(clientContent=content("What is there?", True))
    assert room.requests[-1].tools[0]["function"]["parameters"]["properties"]["at"] == {"type": "integer"}
    for _ in range(6):
        room.step(7)
    (call,) = room.told[-1]["toolCall"]["functionCalls"]
    assert (call["name"], call["args"]) == ("look", {"at": 1}) and "usageMetadata" in room.told[-1]
    room.say(realtimeInput={"video": {"data": PICTURE, "mimeType": "image/jpeg"}})
    room.give_back([call["id"]])
    roles = [message["role"] for message in room.requests[-1].messages]
    assert roles == ["user", "assistant", "tool", "user"]
    assert room.requests[-1].messages[1]["tool_calls"][0]["function"] == {"name": "look", "arguments": {"at": 1}}
    for _ in range(6):
        room.step(7)
    assert "toolCall" in room.told[-1]
    del room.told[:]
    room.say(clientContent=content("Never mind.", False))
    assert "toolCallCancellation" in room.told[0] and room.told[1] == {"serverContent": {"interrupted": True}}
    room.say(clientContent=content("So it is.", False, "model"))
    room.say(clientContent=content("Is it?", True))
    last = [message for message in room.requests[-1].messages if message["role"] == "assistant"][-2]
    assert "tool_calls" not in last and CALL in last["content"], "expected the cancelled call as what was said"


def test_an_activity_in_which_nothing_came_is_not_answered() -> None:
    room = GeminiRoom(realtimeInputConfig={"automaticActivityDetection": {"disabled": True}})
    for sent in ({}, {"text": "Hello"}, {}):
        del room.told[:]
        room.say(realtimeInput={"activityStart": {}})
        if sent:
            room.say(realtimeInput=sent)
        room.say(realtimeInput={"activityEnd": {}})
        assert room.told == ([] if sent else [{"serverContent": {"waitingForInput": True}}])
        while room.step(1):
            pass
    assert [stream.replies for stream in room.streams.values()] == [1]


def test_a_full_context_ends_the_connection() -> None:
    """Media that the model will not see is not lost in silence; nor are media that the reply would need once more."""
    for event in (Dropped(2, "image", 1, None, None, "full"), Error("media_damaged", "no picture", 2)):
        room = GeminiRoom()
        room.say(realtimeInput={"video": {"data": PICTURE, "mimeType": "image/jpeg"}})
        with pytest.raises(GeminiFault, match=r"1008 the context is full|1007 media_damaged: no picture"):
            room.emit(next(iter(room.streams)), event)


def test_media_that_is_no_longer_kept_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT_BYTES", 4)
    room = GeminiRoom()
    for _ in range(2):
        room.say(realtimeInput={"video": {"data": PICTURE, "mimeType": "image/jpeg"}})
    room.say(clientContent=content("What is there?", True))
    while room.step(0):
        pass
    room.say(clientContent=content("A red square.", False, "model"))
    with pytest.raises(GeminiFault, match="1008 the history has to be read again"):
        room.say(clientContent=content("And now?", True))


def test_pictures_have_the_resolution_that_a_client_asks_for() -> None:
    """As few rows as Google's have; more than the model takes is never asked of it."""
    for name, most, expected in (
        ("LOW", 1280, {"max_pixels": 64 * 784}),
        ("MEDIUM", 1280, {"max_pixels": 256 * 784}),
        ("LOW", 16, {}),
        ("HIGH", 1280, {}),
    ):
        setup = setup_of({"generationConfig": {"mediaResolution": f"MEDIA_RESOLUTION_{name}"}}, PictureSize(most, 784))
        assert setup.processor == expected
    room = GeminiRoom(generation_config={"media_resolution": "MEDIA_RESOLUTION_LOW"})
    room.say(realtimeInput={"video": {"data": PICTURE, "mimeType": "image/jpeg"}})
    room.say(clientContent=content("So it is.", False, "model"))
    room.say(clientContent=content("Is it?", True))
    assert [request.processor for request in room.requests] == [{"max_pixels": 64 * 784}] * 2
    with pytest.raises(GeminiFault, match="mediaResolution: expected none, since all pictures"):
        setup_of({"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}}, PictureSize(0, 0))


def test_a_setup_is_what_holds() -> None:
    detection = {"startOfSpeechSensitivity": "START_SENSITIVITY_LOW", "silence_duration_ms": 800, "prefixPaddingMs": 40}
    room = GeminiRoom(
        generationConfig={"temperature": 0.5, "topK": 4.0, "maxOutputTokens": 9, "seed": 3, "stop_sequences": ["x"]},
        systemInstruction={"parts": [{"text": "Be short."}]},
        realtimeInputConfig={"automatic_activity_detection": detection},
        contextWindowCompression={"trigger_tokens": "4000", "sliding_window": {"target_tokens": "2000"}},
        sessionResumption={},
    )
    assert room.told[1] == {"sessionResumptionUpdate": {"newHandle": "token.0", "resumable": True}}
    room.say(clientContent=content("Hello", False))
    (request,) = room.requests
    params = request.params
    assert (params.temperature, params.top_k, params.max_tokens, params.seed, params.stop) == (0.5, 4, 9, 3, ("x",))
    assert request.system == "Be short." and request.window.rows == 4000
    room.speak()
    plain = GeminiRoom()
    plain.say(clientContent=content("Hello", False))
    assert plain.requests[0].window == Window(), "expected a window, as every stream has"
    ((_, stream),) = room.streams.items()
    assert stream.listens is not None and (stream.listens.silence_ms, stream.listens.speech_ms) == (800, 40)
    assert GeminiRoom().requests == []


def test_a_new_stream_hears_speech_that_was_not_noticed_yet() -> None:
    """The stream that listened is replaced before it could tell that somebody speaks."""
    room = GeminiRoom()
    room.say(realtimeInput={"audio": {"data": SOUND, "mimeType": "audio/pcm"}})
    room.say(clientContent=content("So it is.", False, "model"))
    room.say(clientContent=content("Is it?", True))
    ((_, stream),) = room.streams.items()
    assert stream.listens is not None and stream.seq == 2, "expected the sound in the new stream"


def test_speech_that_is_heard_late_is_whole_in_the_history() -> None:
    room = GeminiRoom()
    for _ in range(30):
        room.say(realtimeInput={"audio": {"data": SOUND, "mimeType": "audio/pcm"}})
    ((channel, _),) = room.streams.items()
    room.emit(channel, SpeechStarted(1, 1, 1_000_000, "energy"))
    room.emit(channel, SpeechStopped(1, 2, 3_000_000, "silence"))
    room.emit(channel, ReplyStarted(1, 2))
    room.emit(channel, ReplyDone(1, "stop", 0, rows=9))
    room.say(clientContent=content("So it is.", False, "model"))
    room.say(clientContent=content("Is it?", True))
    sound = room.requests[-1].messages[0]["content"][0]["audio"]
    assert len(sound.data) == 2 * 16_000 * 2


def test_speech_that_was_too_long_to_be_kept_is_not_left_out_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "KEPT_US", 4_000_000)
    room = GeminiRoom()
    for _ in range(9):
        room.say(realtimeInput={"audio": {"data": SOUND, "mimeType": "audio/pcm"}})
    ((channel, _),) = room.streams.items()
    room.emit(channel, SpeechStarted(1, 1, 0, "energy"))
    room.emit(channel, SpeechStopped(1, 2, 8_000_000, "silence"))
    room.emit(channel, ReplyStarted(1, 2))
    room.emit(channel, ReplyDone(1, "stop", 0, rows=9))
    room.say(clientContent=content("So it is.", False, "model"))
    with pytest.raises(GeminiFault, match="1008 the history has to be read again"):
        room.say(clientContent=content("Is it?", True))
