"""Prints one exchange on `/v1/stream` for docs/wire.md: `python tests/server/transcript.py [URL]`.

Without a URL it talks to the fake engine. `>` is the client, `<` the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from typing import Any

from fake_engine import FakeEngine
from harness import RawClient, raw_client, serving
from PIL import Image, ImageDraw


def tell(*words: str) -> None:
    """One line on stdout."""
    sys.stdout.write(" ".join(words) + "\n")


class Recorder(RawClient):
    """A client that prints what goes by."""

    async def send(self, **message: Any) -> None:
        tell(">", json.dumps(message))
        await super().send(**message)

    async def send_binary(self, header: dict[str, Any], payload: bytes) -> None:
        tell(">", f"[{len(json.dumps(header))} as u16]", json.dumps(header), f"[{len(payload)} bytes]")
        await super().send_binary(header, payload)

    async def receive(self) -> dict[str, Any]:
        message = await super().receive()
        tell("<", json.dumps(message))
        return message


def picture() -> bytes:
    """A JPEG of a red circle."""
    shown = Image.new("RGB", (112, 112), (40, 40, 46))
    ImageDraw.Draw(shown).ellipse((38, 38, 74, 74), fill=(220, 40, 40))
    file = io.BytesIO()
    shown.save(file, "JPEG")
    return file.getvalue()


async def exchange(url: str) -> None:
    async with raw_client(url) as raw:
        client = Recorder(raw.socket)
        tell("<", json.dumps(raw.welcome))
        await client.send(type="open", stream="door", format="live")
        await client.receive_until("opened")
        for number in range(2):
            header = {"type": "frame", "stream": "door", "pts_us": number * 500_000, "ref": f"f{number}"}
            await client.send_binary(header, picture())
            await client.receive_until("accepted")
        await client.send(type="ask", stream="door", question="What do you see?", params={"hold": False})
        await client.receive_until("done")
        await client.send_binary({"type": "frame", "stream": "door", "pts_us": "now"}, picture())
        await client.receive_until("error")
        await client.send(type="close", stream="door")
        await client.receive_until("closed")


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        url = sys.argv[1] if len(sys.argv) > 1 else await stack.enter_async_context(serving(FakeEngine()))
        await exchange(url)


if __name__ == "__main__":
    asyncio.run(main())
