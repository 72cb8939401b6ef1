"""Turns by voice on `/v1/realtime`: the stream hears when somebody speaks, and the client is told in OpenAI's order."""

from __future__ import annotations

import asyncio
import base64
import shutil

import numpy as np
import pytest
from harness import running_engine, serving
from penstock.demos.brook.sound import say
from realtime_client import RATE, Talking, talking, text

pytestmark = [
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: no words can be said"),
]
ORDER = """input_audio_buffer.speech_started input_audio_buffer.speech_stopped input_audio_buffer.committed
conversation.item.added conversation.item.done""".split()


def spoken(word: str) -> bytes:
    """A word with silence around it, as PCM of 16 bits at 24 kHz."""
    sound = say(word, 20_001) * 0.6
    places = np.arange(len(sound) * 3 // 2) / 1.5
    samples = np.interp(places, np.arange(len(sound)), sound)
    return (np.concatenate([np.zeros(RATE // 2), samples, np.zeros(RATE)]) * 32767).astype("<i2").tobytes()


async def speak(client: Talking, word: str) -> None:
    """As a microphone does, a tenth of a second at a time."""
    sound = spoken(word)
    for at in range(0, len(sound), RATE // 5):
        await client.connection.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + RATE // 5]).decode())
        await asyncio.sleep(0.01)


def kinds(client: Talking) -> list[str]:
    return [event["type"] for event in client.told]


def test_what_is_said_becomes_an_item(brook_url: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), talking(brook_url) as client:
            await client.update(audio={"input": {"turn_detection": {"create_response": False}}})
            for word in ("red", "blue"):
                client.told.clear()
                await speak(client, word)
                item = (await client.until("conversation.item.done"))["item"]
                assert kinds(client) == ORDER and client.told[0]["item_id"] == item["id"]
                assert client.told[0]["audio_start_ms"] < client.told[1]["audio_end_ms"]
                assert await client.ask(text("What was said?")) == f"{word}."

    asyncio.run(main())


def test_who_says_nothing_for_long_is_asked(brook_url: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), talking(brook_url) as client:
            await client.update(audio={"input": {"turn_detection": {"idle_timeout_ms": 600}}})
            client.told.clear()
            silence = base64.b64encode(bytes(RATE // 5)).decode()
            for _ in range(10):
                await client.connection.input_audio_buffer.append(audio=silence)
            response = (await client.until("response.done"))["response"]
            assert response["status"] == "completed"
            told = [kind for kind in kinds(client) if not kind.startswith("response.")]
            assert told[:4] == ["input_audio_buffer.timeout_triggered", *ORDER[2:]]
            timeout = client.told[0]
            assert 560 <= timeout["audio_end_ms"] - timeout["audio_start_ms"] <= 640
            assert timeout["item_id"] == client.told[1]["item_id"]

    asyncio.run(main())


def test_who_speaks_cuts_the_response_and_is_answered() -> None:
    """The reply of a random model has no end of its own in time: speech ends it, and when speech stops the next one
    begins by itself."""

    async def main() -> None:
        async with (
            asyncio.timeout(60),
            running_engine("real") as engine,
            serving(engine) as url,
            talking(url) as client,
        ):
            await client.add(text("Go on and on."))
            await client.connection.response.create()
            await client.until("response.output_text.delta")
            client.told.clear()
            await speak(client, "one two three four five")
            await client.until("response.done")
            await client.until("response.created")
            told = [
                kind for kind in kinds(client) if kind.startswith("input_audio") or "done" in kind or "created" in kind
            ]
            cut = next(event for event in client.told if event["type"] == "response.done")["response"]
            assert cut["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
            assert told.index("input_audio_buffer.speech_started") < told.index("response.done")
            assert told[-4:] == [*ORDER[1:3], ORDER[4], "response.created"]
            await client.connection.response.cancel()
            await client.until("response.done")

    asyncio.run(main())
