"""A live transcription session of the unmodified `openai` package: what is said becomes words, and nobody replies."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from fake_engine import FakeEngine
from hypothesis import example, given
from hypothesis import strategies as st
from penstock.engine.families.transcription import WORDINGS, transcription_of
from penstock.errors import ModelError
from penstock.server import commands as c
from penstock.server.doors.realtime.transcribing import TranscribingDoor
from penstock.streams.event import ReplyDone
from realtime_client import ADAPTER, Talking, beeps, talking, text
from test_realtime_hostile import changed, places, values
from test_realtime_voice import speak, spoken

spoken_words = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: no words")
QUERY = {"intent": "transcription"}
WORDS = "conversation.item.input_audio_transcription"
HEARD = "input_audio_buffer.committed conversation.item.added conversation.item.done".split()


async def update(client: Talking, **heard: Any) -> dict[str, Any]:
    await client.connection.session.update(session={"type": "transcription", "audio": {"input": heard}})  # pyright: ignore
    return (await client.until("session.updated"))["session"]["audio"]["input"]


@spoken_words
def test_each_utterance_becomes_words(brook_url: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), talking(brook_url, extra_query=QUERY) as client:
            assert client.told[0]["session"]["type"] == "transcription"
            before = None
            for word in ("red", "blue"):
                client.told.clear()
                await speak(client, word)
                done = await client.until(f"{WORDS}.completed")
                assert done["transcript"] == word and done["usage"]["input_token_details"]["audio_tokens"] > 0
                kinds = [event["type"] for event in client.told]
                began = ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
                assert kinds == [*began, *HEARD, f"{WORDS}.delta", f"{WORDS}.completed"]
                assert {event.get("item_id", done["item_id"]) for event in client.told} == {done["item_id"]}
                assert client.told[2]["previous_item_id"] == before
                before = done["item_id"]

    asyncio.run(main())


@spoken_words
def test_a_commit_without_turn_detection(brook_url: str) -> None:
    """Utterances that come faster than their words get them in their order."""

    async def main() -> None:
        async with asyncio.timeout(60), talking(brook_url, extra_query=QUERY) as client:
            told = await update(client, turn_detection=None, transcription={"language": "en"})
            assert told["turn_detection"] is None and told["transcription"]["language"] == "en"
            buffer = client.connection.input_audio_buffer
            for sound in (spoken("three"), spoken("green"), beeps(1)):
                await buffer.append(audio=base64.b64encode(sound).decode())
                await buffer.commit()
            done = [await client.until(f"{WORDS}.completed") for _ in range(3)]
            assert [event["transcript"] for event in done] == ["three", "green", ""]
            items = [event["item_id"] for event in client.told if event["type"] == HEARD[0]]
            assert [event["item_id"] for event in done] == items

    asyncio.run(main())


def test_what_is_refused_changes_nothing(brook_url: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), talking(brook_url, extra_query=QUERY) as client:
            session, item = client.connection.session, {"type": "message", "role": "user", "content": [text("x")]}
            await session.update(session={"type": "realtime"})  # pyright: ignore
            assert (await client.refused())["param"] == "session.type"
            for name, value in (("language", "de"), ("prompt", "colours")):
                sound: Any = {"input": {"transcription": {name: value}, "turn_detection": None}}
                await session.update(session={"type": "transcription", "audio": sound})
                assert (await client.refused())["param"] == f"session.audio.input.transcription.{name}"
            await client.connection.input_audio_buffer.commit()
            assert (await client.refused())["code"] == "input_audio_buffer_commit_empty"
            await client.connection.conversation.item.create(item=item)  # pyright: ignore
            assert "no replies" in (await client.refused())["message"]
            assert (await update(client))["turn_detection"] is not None

    asyncio.run(main())


GOOD: list[dict[str, Any]] = [
    {"type": "session.update", "session": {"type": "transcription", "audio": {"input": {"turn_detection": None}}}},
    {"type": "session.update", "session": {"audio": {"input": {"transcription": {"language": "en", "prompt": "a"}}}}},
    {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}},
    {"type": "input_audio_buffer.append", "audio": "AAAA" * 1600},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "response.create"},
]
PLACES = [(number, path) for number, event in enumerate(GOOD) for path in places(event)]
wrong = st.builds(lambda place, value: changed(place, value, GOOD), st.sampled_from(PLACES), values)


# The mark stands for an utterance: sound, and its commit.
steps = st.lists(st.one_of(wrong, st.sampled_from(GOOD), st.just(None), st.just(None)), max_size=40)


@given(steps)
@example([None, GOOD[-1], None])
def test_no_message_breaks_a_session_and_each_utterance_has_an_end(said: list[Any]) -> None:
    """A whole utterance is always taken, whatever came before it, and has one end."""
    door, told = TranscribingDoor(FakeEngine().info, WORDINGS["qwen2_5_omni"]), list[dict[str, Any]]()  # pyright: ignore

    def take(parts: Iterable[bytes | c.Command]) -> None:
        for part in list(parts):
            if isinstance(part, bytes):
                told.append(json.loads(part))
                ADAPTER.validate_python(told[-1])
            elif isinstance(part, c.OpenStream) and part.request.messages:
                done = ReplyDone(1, ("stop", "length", "error")[len(told) % 3], 3)
                take(door.tell(c.StreamEvent(stream=part.stream, event=done)))

    take(door.greet())
    for event in said:
        for part in [GOOD[0], *GOOD[3:5]] if event is None else [event]:
            take(door.hear(json.dumps(part)))
    kinds = [event["type"] for event in told]
    assert kinds.count(HEARD[0]) >= said.count(None)
    assert kinds.count(HEARD[0]) == kinds.count(f"{WORDS}.completed") + kinds.count(f"{WORDS}.failed")


def test_a_wording_that_is_none_is_refused_with_its_place() -> None:
    wrong = {
        "question": {"word": "x"},
        "transcription.question": {"question": ""},
        "word": {"question": "?", "word": "("},
    }
    for place, wording in wrong.items():
        with pytest.raises(ModelError, match=rf"config.json: transcription: .*{place}"):
            transcription_of(SimpleNamespace(transcription=wording), "qwen2_5_omni")
