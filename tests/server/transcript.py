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
from PIL import Image


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


def picture(red: int) -> bytes:
    """A JPEG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (red, 40, 40)).save(file, "JPEG")
    return file.getvalue()


async def exchange(url: str) -> None:
    async with raw_client(url) as raw:
        client = Recorder(raw.socket)
        tell("<", json.dumps(raw.welcome))
        await client.send(type="open", stream="door", system="You watch a door.", format="live")
        await client.receive_until("opened")
        for number in range(2):
            header = {"type": "frame", "stream": "door", "pts_us": number * 500_000, "ref": f"f{number}"}
            await client.send_binary(header, picture(80 * number))
            await client.receive_until("accepted")
        await client.send(type="ask", stream="door", question="Who came in?", params={"max_tokens": 4})
        await client.receive_until("done")
        await client.send_binary({"type": "frame", "stream": "door", "pts_us": "now"}, picture(200))
        await client.receive_until("error")
        await client.send(type="close", stream="door")
        await client.receive_until("closed")


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        url = sys.argv[1] if len(sys.argv) > 1 else await stack.enter_async_context(serving(FakeEngine()))
        await exchange(url)


if __name__ == "__main__":
    asyncio.run(main())
