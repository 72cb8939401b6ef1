"""A live transcription session of the unmodified `openai` package: what is said becomes words, and nobody replies."""

from __future__ import annotations

import asyncio
import base64
import shutil
from typing import Any

import pytest
from realtime_client import Talking, beeps, talking, text
from test_realtime_voice import speak, spoken

pytestmark = [
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: no words can be said"),
]
QUERY = {"intent": "transcription"}
WORDS = "conversation.item.input_audio_transcription"
HEARD = "input_audio_buffer.committed conversation.item.added conversation.item.done".split()


async def update(client: Talking, **heard: Any) -> dict[str, Any]:
    await client.connection.session.update(session={"type": "transcription", "audio": {"input": heard}})  # pyright: ignore
    return (await client.until("session.updated"))["session"]["audio"]["input"]


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
