"""A client of `/v1/realtime`: the unmodified `openai` package. Each event of the server is checked against its types.
And pictures and sounds that Brook knows."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from PIL import Image
from pydantic import TypeAdapter

ADAPTER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 230), "green": (40, 180, 60), "yellow": (240, 220, 40)}
RATE = 24_000


class Talking:
    """One connection; `told` has every event that has come."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.told: list[dict[str, Any]] = []

    async def until(self, *kinds: str) -> dict[str, Any]:
        """The first event of one of these kinds that comes from now on."""
        while True:
            event = (await self.connection.recv()).to_dict()
            ADAPTER.validate_python(event)
            self.told.append(event)
            if event["type"] in kinds:
                return event
            assert event["type"] != "error" or "error" in kinds, event

    async def update(self, **session: Any) -> dict[str, Any]:
        await self.connection.session.update(session={"type": "realtime", **session})  # pyright: ignore
        return (await self.until("session.updated"))["session"]

    async def add(self, *content: dict[str, Any], role: str = "user", **said: Any) -> str:
        """Create an item; its id."""
        item = {"type": "message", "role": role, "content": list(content), **said.pop("item", {})}
        await self.connection.conversation.item.create(item=item, **said)  # pyright: ignore
        return (await self.until("conversation.item.done"))["item"]["id"]

    async def respond(self, **response: Any) -> dict[str, Any]:
        """Ask for a response and wait for its end."""
        await self.connection.response.create(response=response)  # pyright: ignore
        return (await self.until("response.done"))["response"]

    async def ask(self, *content: dict[str, Any], **response: Any) -> str:
        """Say something; the words of the answer."""
        await self.add(*content)
        return words_of(await self.respond(**response))

    async def refused(self) -> dict[str, Any]:
        return (await self.until("error"))["error"]


@contextlib.asynccontextmanager
async def talking(url: str, **options: Any) -> AsyncIterator[Talking]:
    """A connection of the SDK whose `session.created` has come."""
    client = AsyncOpenAI(api_key="none", base_url=f"{url}/v1")
    async with client.realtime.connect(model="gpt-realtime", **options) as connection:
        talk = Talking(connection)
        assert (await talk.until("session.created", "error"))["type"] == "session.created"
        yield talk


def words_of(response: dict[str, Any]) -> str:
    assert response["status"] == "completed", response
    return response["output"][0]["content"][0]["text"]


def text(words: str) -> dict[str, Any]:
    return {"type": "input_text", "text": words}


def picture(colour: str) -> dict[str, Any]:
    """A square of this colour on black."""
    pixels = np.zeros((112, 112, 3), np.uint8)
    pixels[36:76, 36:76] = COLOURS[colour]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"type": "input_image", "image_url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}


def beeps(count: int, hertz: float = 1500.0) -> bytes:
    """So many beeps, a second each, as PCM of 16 bits at 24 kHz."""
    time = np.arange(RATE) / RATE
    one = np.where((time > 0.2) & (time < 0.5), 0.4 * np.sin(2 * np.pi * hertz * time), 0.0)
    return (np.tile(one, count) * 32767).astype("<i2").tobytes()


def sound(samples: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "audio": base64.b64encode(samples).decode()}
