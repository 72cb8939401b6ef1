"""The WebSocket `BidiGenerateContent` as a plain client has it, which sends what Google's clients send: with Brook,
which knows what it sees and hears, and without a model."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import shutil
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine
from harness import run, serving
from penstock import Engine
from penstock.demos.brook.sound import say
from penstock.engine.config import EngineConfig
from PIL import Image
from realtime_client import beeps, picture
from test_app import draining
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.fixtures.recipe import model_path

PATH = "/ws/google.ai.generativelanguage.{}.GenerativeService.BidiGenerateContent"


class Live:
    """One connection. `told`: the server's messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.told: list[dict[str, Any]] = []

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def next(self) -> dict[str, Any]:
        self.told.append(json.loads(await self.socket.recv()))
        return self.told[-1]

    async def turn(self) -> str:
        """The words of a turn, to its end."""
        words = ""
        while not (served := (await self.next()).get("serverContent", {})).get("turnComplete"):
            words += "".join(part["text"] for part in served.get("modelTurn", {}).get("parts", []))
        return words

    async def ask(self, *parts: Any) -> str:
        said = [{"text": part} if isinstance(part, str) else part for part in parts]
        await self.say(clientContent={"turns": [{"role": "user", "parts": said}], "turnComplete": True})
        return await self.turn()


@contextlib.asynccontextmanager
async def live(url: str, version: str = "v1beta", slash: str = "", **setup: Any) -> AsyncIterator[Live]:
    address = url.replace("http", "ws", 1) + slash + PATH.format(version)
    async with connect(address, compression=None, proxy=None) as socket:
        client = Live(socket)
        await client.say(setup={"model": "models/any", **setup})
        assert "setupComplete" in await client.next()
        yield client


def jpeg(colour: str) -> dict[str, Any]:
    """A square of this colour, as a blob in URL-safe base64."""
    file = base64.b64decode(picture(colour)["image_url"].partition(",")[2])
    made = io.BytesIO()
    Image.open(io.BytesIO(file)).convert("RGB").save(made, "JPEG", quality=95)
    return {"data": base64.urlsafe_b64encode(made.getvalue()).decode(), "mime_type": "image/jpeg"}


def pcm(samples: bytes, rate: int = 24_000) -> dict[str, Any]:
    return {"data": base64.b64encode(samples).decode(), "mimeType": f"audio/pcm;rate={rate}"}


def test_pictures_words_and_sounds_are_answered(brook_url: str) -> None:
    async def main() -> None:
        manual = {"automatic_activity_detection": {"disabled": True}}
        async with asyncio.timeout(60), live(brook_url, realtimeInputConfig=manual) as client:
            assert await client.ask({"inline_data": jpeg("red")}, "What colour is the square?") == "red."
            first = client.told[-1]["usageMetadata"]
            assert {"modality": "IMAGE", "tokenCount": 16} in first["promptTokensDetails"]
            assert client.told[-2] == {"serverContent": {"generationComplete": True}}
            await client.say(realtime_input={"video": jpeg("blue")})
            assert await client.ask("What colour is the square?") == "blue."
            second = client.told[-1]["usageMetadata"]
            assert second["cachedContentTokenCount"] == first["totalTokenCount"]
            assert second["totalTokenCount"] == second["promptTokenCount"] + second["responseTokenCount"]
            await client.say(realtimeInput={"audio": pcm(beeps(3))})  # outside of an activity: nobody hears it
            await client.say(realtimeInput={"activityStart": {}})
            for at in range(0, 96_000, 9_600):
                await client.say(realtimeInput={"audio": pcm(beeps(2)[at : at + 9_600])})
            await client.say(realtimeInput={"text": "How many beeps were there?"})
            await client.say(realtimeInput={"activityEnd": {}})
            assert await client.turn() == "two."

    asyncio.run(main())


def test_a_client_brings_its_history(brook_url: str) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(60),
            live(brook_url, historyConfig={"initialHistoryInClientContent": True}) as client,
        ):
            turns = [{"parts": [{"inlineData": jpeg("green")}, {"text": "What shape is it?"}]}]
            turns.append({"role": "model", "parts": [{"text": "square."}]})  # pyright: ignore
            await client.say(clientContent={"turns": turns, "turnComplete": True})
            assert await client.ask("And what colour is it?") == "green."

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: no words can be said")
def test_who_speaks_is_answered(brook_url: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), live(brook_url) as client:
            sound = np.concatenate([np.zeros(8_000), say("blue", 20_001) * 0.6])
            samples = (sound * 32767).astype("<i2").tobytes()
            for at in range(0, len(samples), 3_200):
                await client.say(realtimeInput={"mediaChunks": [pcm(samples[at : at + 3_200], 16_000)]})
            await client.say(realtimeInput={"audioStreamEnd": True})
            await client.turn()
            assert client.told[-1]["usageMetadata"]["promptTokensDetails"][-1]["modality"] == "AUDIO"
            assert await client.ask("Which words did you hear?") == "blue."

    asyncio.run(main())


def test_what_a_client_says_interrupts() -> None:
    """A turn that is cut tells no `generationComplete`, and what cut it is answered."""

    async def main() -> None:
        engine = FakeEngine(tokens=9)
        engine.gate = asyncio.Semaphore(1)
        async with serving(engine) as url, live(url) as client:
            go = {"turns": [{"parts": [{"text": "Go on."}]}], "turn_complete": True}
            await client.say(client_content=go)
            assert "modelTurn" in (await client.next())["serverContent"]
            await client.say(client_content=go)
            assert (await client.next()) == {"serverContent": {"interrupted": True}}
            done = await client.next()
            assert done["serverContent"] == {"turnComplete": True} and done["usageMetadata"]["responseTokenCount"] == 1
            engine.gate.release()
            assert "modelTurn" in (await client.next())["serverContent"]

    run(main)


def test_paths_and_keys() -> None:
    """Any of the versions, with any number of slashes before it; the key in a header or in the URL, and nowhere else in
    a URL."""

    async def main() -> None:
        async with serving(FakeEngine(), api_key="secret") as url:
            for version, slash in (("v1", ""), ("v1beta", "/"), ("v1alpha", "//")):
                address = url.replace("http", "ws", 1) + slash + PATH.format(version)
                for suffix, headers in (("?key=secret", {}), ("", {"x-goog-api-key": "secret"})):
                    async with connect(address + suffix, proxy=None, additional_headers=headers):
                        pass
                for suffix in ("", "?key=other"):
                    with pytest.raises(InvalidStatus, match="401"):
                        async with connect(address + suffix, proxy=None):
                            pass
            with pytest.raises(InvalidStatus, match="401"):
                async with connect(url.replace("http", "ws", 1) + "/v1/realtime?key=secret", proxy=None):
                    pass

    run(main)


def test_what_cannot_be_done_closes_with_a_reason(brook_url: str) -> None:
    async def main() -> None:
        broken = {"data": base64.b64encode(b"no picture").decode(), "mimeType": "image/jpeg"}
        for message, code, words in (
            ({"realtimeInput": {"video": broken}}, 1007, "media"),
            ({"realtimeInput": {"sing": True}}, 1007, "realtimeInput.sing"),
            ({"setup": {}}, 1007, "setup first"),
        ):
            async with asyncio.timeout(30), live(brook_url) as client:
                await client.say(**message)
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        await client.next()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == code and words in closed.value.rcvd.reason

    asyncio.run(main())


def test_a_session_goes_on_when_its_part_of_the_cache_is_full() -> None:
    """Sixty pictures are more than the cache holds: the oldest leave, and the usage says what is still there."""

    async def main() -> None:
        config = EngineConfig(kv_tokens=640)
        async with await Engine.load(model_path("omni"), config=config) as engine, serving(engine) as url:
            async with live(url, generationConfig={"maxOutputTokens": 4}) as client:
                for number in range(60):
                    await client.say(realtimeInput={"video": jpeg(("red", "blue")[number % 2])})
                await client.ask("And now?")
                shown = client.told[-1]["usageMetadata"]["promptTokensDetails"]
                (pictures,) = [kind["tokenCount"] for kind in shown if kind["modality"] == "IMAGE"]
                assert 16 <= pictures < 640 and pictures % 16 == 0

    run(main)


def test_a_server_that_goes_down_says_so() -> None:
    """The running turn comes to its end, and nothing new begins."""

    async def main() -> None:
        engine = FakeEngine(tokens=3)
        engine.gate = asyncio.Semaphore(0)
        async with draining(engine, drain_seconds=9) as (url, drain), live(url) as client:
            await client.say(clientContent={"turns": [{"parts": [{"text": "Hello"}]}], "turnComplete": True})
            engine.gate.release()
            await client.next()
            ending = asyncio.create_task(drain(), name="drain")
            assert await client.next() == {"goAway": {"timeLeft": "9s"}}
            engine.gate.release()
            engine.gate.release()
            await client.turn()
            with pytest.raises(ConnectionClosed) as closed:
                await client.next()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
            await ending

    run(main)
