"""What the door `BidiGenerateContent` does not serve, and any message at all: only a reason ends a connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_engine import FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.server.config import ServerConfig
from penstock.server.doors.gemini.door import GeminiDoor
from penstock.server.doors.gemini.wire import GeminiFault

NAMES = """setup model generationConfig temperature topK responseModalities tools functionDeclarations name parameters
properties type clientContent turns turn_complete role parts text inlineData data mimeType realtimeInput audio video
activityStart mediaChunks toolResponse functionResponses id realtimeInputConfig automaticActivityDetection""".split()
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.sampled_from(NAMES)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)),
    max_leaves=12,
)
messages = st.dictionaries(st.sampled_from(["setup", "clientContent", "realtimeInput", "toolResponse"]), values)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(messages, messages.map(json.dumps), st.text(), st.binary()), max_size=4), st.booleans())
def test_nothing_but_a_reason_ends_a_connection(said: list[Any], begins: bool) -> None:
    door = GeminiDoor(FakeEngine().info, ServerConfig(), {})  # pyright: ignore[reportArgumentType]
    try:
        for message in [{"setup": {}}, *said] if begins else said:
            list(door.hear(json.dumps(message) if isinstance(message, dict) else message))
    except GeminiFault as fault:
        assert fault.reason and len(fault.reason.encode()) <= 123


SETUP: dict[str, Any] = {"model": "models/any"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"setup": {**SETUP, "generationConfig": {"responseModalities": ["AUDIO"]}}}, "generationConfig.responseModal"),
    ({"setup": {**SETUP, "generationConfig": {"temperature": -1}}}, "temperature"),
    ({"setup": {**SETUP, "generation_config": {"thinking_config": {"thinking_budget": 9}}}}, "thinking_config"),
    ({"setup": {**SETUP, "tools": [{"googleSearch": {}}]}}, "tools[0].googleSearch"),
    ({"setup": {**SETUP, "inputAudioTranscription": {}}}, "inputAudioTranscription"),
    ({"setup": {**SETUP, "sessionResumption": {"handle": "x"}}}, "sessionResumption.handle"),
    ({"setup": {**SETUP, "proactivity": {"proactiveAudio": True}}}, "proactivity"),
    ({"setup": {**SETUP, "generationConfig": {"seed": 1e300}}}, "generationConfig.seed"),
    ({"setup": {**SETUP, "tools": [{"functionDeclarations": [{"name": "a", "parametersJsonSchema": "x"}]}]}}, "Schema"),
    ({"clientContent": {}}, "setup first"),
    ({"setup": {}, "clientContent": {}}, "expected one of"),
]
REFUSED_LATER: list[tuple[dict[str, Any], str]] = [
    ({"setup": SETUP}, "setup first, and once"),
    ({"sing": {}}, "message.sing"),
    ({"clientContent": {"turns": [], "turnComplete": True}}, "got none"),
    ({"clientContent": {"turns": [{"parts": [{"fileData": {"fileUri": "x"}}]}]}}, "parts[0].fileData"),
    ({"clientContent": {"turns": [{"parts": [{"inlineData": {"data": "?", "mimeType": "image/png"}}]}]}}, "base64"),
    ({"realtimeInput": {}}, "realtimeInput"),
    ({"realtimeInput": {"activityStart": {}}}, "activityStart"),
    ({"realtimeInput": {"audio": {"data": "AAAA", "mimeType": "audio/pcm"}}}, "whole samples"),
    ({"realtimeInput": {"audio": {"data": "AAA=", "mimeType": "audio/opus"}}}, "audio/opus"),
    ({"realtimeInput": {"audio": {"data": "AAA=", "mimeType": "audio/pcm;rate=1"}}}, "rate="),
    ({"realtimeInput": {"video": {"data": "AAA=", "mimeType": "video/mp4"}}}, "video/mp4"),
    ({"toolResponse": {"functionResponses": [{"id": "x", "name": "look"}]}}, "'x'"),
]


@pytest.mark.parametrize(("message", "words"), REFUSED + REFUSED_LATER)
def test_what_is_not_served_ends_the_connection_with_the_field(message: dict[str, Any], words: str) -> None:
    door = GeminiDoor(FakeEngine().info, ServerConfig(), {})  # pyright: ignore[reportArgumentType]
    if (message, words) in REFUSED_LATER:
        assert list(door.hear(b'{"setup": {"model": "models/any"}}'))
    with pytest.raises(GeminiFault) as refused:
        list(door.hear(json.dumps(message)))
    assert words in refused.value.reason and refused.value.code in (1007, 1008)
    assert len(refused.value.reason.encode()) <= 123
