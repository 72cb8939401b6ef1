"""Clients of three doors who behave as a seed says: each connects, shows and says something at its pace, asks, reads at
once or slowly, cuts the reply, or vanishes without a word in the middle of an upload or of a reply.

Each client checks what it is told: what it asked for ends, and nothing is an error of the server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import random
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket

from tests.reference.media import frames, png

PICTURES = [png(pixels) for pixels in frames(5, 16)]
SECONDS = 90.0  # for one visit
WAYS = ("read", "slow", "cut", "leave", "vanish uploading", "vanish reading")
# The start of a long message of a WebSocket client: a binary frame of 60,000 bytes, with a mask of zeros.
HALF_FRAME = bytes([0x82, 0x80 | 126]) + struct.pack(">H", 60_000) + bytes(4) + bytes(3_000)


class Crowd:
    """The clients of one server; `firsts` has the seconds to the first token, by door."""

    def __init__(self, url: str, seed: int, pace: float) -> None:
        """`pace`: seconds between two pieces of media, about."""
        self.address = url.removeprefix("http://")
        self.random = random.Random(seed)
        self.pace = pace
        self.firsts: dict[str, list[float]] = {door: [] for door in VISITS}
        self.visits: Counter[str] = Counter()

    async def come(self, count: int, seconds: float) -> None:
        """So many clients, an equal number at each door, who visit again and again for so long."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                door = list(VISITS)[number % len(VISITS)]
                first = number // len(VISITS) * 2
                work = self._stay(door, first, random.Random(self.random.random()), until)
                tasks.create_task(work, name=f"{door} {number}")

    async def _stay(self, door: str, first: int, rng: random.Random, until: float) -> None:
        """Two visits at least, each in another way: three clients of a door come in all ways."""
        await asyncio.sleep(rng.random() * self.pace)
        for turn in itertools.count(1):
            await self.visit(door, WAYS[(first + turn) % len(WAYS)], rng)
            if turn > 1 and time.monotonic() >= until:
                return

    async def visit(self, door: str, way: str, rng: random.Random) -> None:
        """One client from its coming to its going."""
        guest = Guest(self, door, way, rng)
        async with asyncio.timeout(SECONDS):
            await VISITS[door](guest)
        self.visits[f"{door}, {way}"] += 1


class Guest:
    """One visit; `way` is one of `WAYS`."""

    def __init__(self, crowd: Crowd, door: str, way: str, rng: random.Random) -> None:
        self.crowd = crowd
        self.door, self.way, self.random = door, way, rng
        self.tokens = rng.randrange(8, 40)  # of the reply
        self.enough = rng.randrange(1, self.tokens) if way in ("cut", "leave", "vanish reading") else None
        self.asked = 0.0
        self.read = 0

    async def rest(self) -> None:
        """Until the next piece."""
        await asyncio.sleep(self.crowd.pace * (0.5 + self.random.random()))

    def asks(self) -> None:
        self.asked = time.monotonic()

    async def heard(self) -> bool:
        """A token has come; gives whether it is enough. Slow readers take their time."""
        if self.read == 0:
            self.crowd.firsts[self.door].append(time.monotonic() - self.asked)
        self.read += 1
        if self.way == "slow":
            await asyncio.sleep(0.03)
        return self.read == self.enough

    def picture(self) -> bytes:
        return self.random.choice(PICTURES)

    def pcm(self, rate: int) -> bytes:
        """A quarter of a second of noise, 16 bits."""
        return self.random.randbytes(rate // 4 * 2)


@contextlib.asynccontextmanager
async def vanishing(socket: ClientConnection, way: str) -> AsyncIterator[None]:
    """At its end whoever vanishes is gone without a word."""
    try:
        yield
    finally:
        if way.startswith("vanish"):
            if way == "vanish uploading":
                socket.transport.write(HALF_FRAME)
            socket.transport.abort()


async def told(socket: ClientConnection) -> dict[str, Any]:
    return json.loads(await socket.recv())


# ---- /v1/stream ------------------------------------------------------------------------------------------------------
async def at_stream(guest: Guest) -> None:
    """A camera and a microphone."""
    address = f"ws://{guest.crowd.address}/v1/stream"
    async with open_socket(address, compression=None, proxy=None) as socket, vanishing(socket, guest.way):
        if guest.random.random() < 0.3:
            await socket.send(json.dumps({"type": "keep"}))
        form, policy = guest.random.choice([("turns", "block"), ("live", "block"), ("turns", "latest")])
        await socket.send(json.dumps({"type": "open", "stream": "a", "format": form, "policy": policy}))
        for number in range(guest.random.randrange(2, 8)):
            await guest.rest()
            header: dict[str, Any] = {"type": "frame", "encoding": "picture", "pts_us": number * 500_000}
            await socket.send(_binary(header, guest.picture()))
            header = {"type": "pcm", "rate": 16_000, "channels": 1, "encoding": "s16le", "pts_us": number * 500_000}
            await socket.send(_binary(header, guest.pcm(16_000)))
        if guest.way == "vanish uploading":
            return
        params = {"max_tokens": guest.tokens, "ignore_eos": True}
        guest.asks()
        await socket.send(json.dumps({"type": "ask", "stream": "a", "question": "What?", "params": params}))
        await _until_done(guest, socket)


def _binary(header: dict[str, Any], data: bytes) -> bytes:
    head = json.dumps({"stream": "a", **header}).encode()
    return struct.pack("<H", len(head)) + head + data


async def _until_done(guest: Guest, socket: ClientConnection) -> None:
    number = 0
    while True:
        event = await told(socket)
        assert event["type"] != "error", event
        if "number" in event:
            assert event["number"] == number + 1, (number, event)
            number += 1
        if event["type"] == "token" and await guest.heard():
            if guest.way != "cut":
                return
            await socket.send(json.dumps({"type": "interrupt", "stream": "a"}))
        if event["type"] == "done":
            assert event["reason"] in ("length", "interrupted"), event
            assert guest.read == event["tokens"] or event["reason"] == "interrupted", (guest.read, event)
            return


# ---- /v1/realtime ----------------------------------------------------------------------------------------------------
async def at_realtime(guest: Guest) -> None:
    """A conversation with a picture and a sound, with turns by voice or without."""
    address = f"ws://{guest.crowd.address}/v1/realtime?model=any"
    async with open_socket(address, compression=None, proxy=None) as socket, vanishing(socket, guest.way):

        async def say(kind: str, **fields: Any) -> None:
            await socket.send(json.dumps({"type": kind, **fields}))

        by_voice = guest.random.random() < 0.3
        if not by_voice:
            await say("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        for _ in range(guest.random.randrange(1, 4)):
            await guest.rest()
            image = "data:image/png;base64," + base64.b64encode(guest.picture()).decode()
            parts = [{"type": "input_image", "image_url": image}, {"type": "input_text", "text": "Look."}]
            await say("conversation.item.create", item={"type": "message", "role": "user", "content": parts})
            await say("input_audio_buffer.append", audio=base64.b64encode(guest.pcm(24_000)).decode())
        if guest.way == "vanish uploading":
            return
        if not by_voice:
            await say("input_audio_buffer.commit")
        guest.asks()
        await say("response.create", response={"max_output_tokens": guest.tokens})
        await _until_response_done(guest, socket, say)


async def _until_response_done(guest: Guest, socket: ClientConnection, say: Callable[..., Awaitable[None]]) -> None:
    while True:
        event = await told(socket)
        # A response that has just ended cannot be cancelled; by voice one may run already.
        code = event["error"]["code"] if event["type"] == "error" else None
        assert code in (None, "response_cancel_not_active", "conversation_already_has_active_response"), event
        if event["type"] == "response.output_text.delta" and await guest.heard():
            if guest.way != "cut":
                return
            await say("response.cancel")
        if event["type"] == "response.done":
            assert event["response"]["status"] in ("completed", "incomplete", "cancelled"), event
            return


# ---- /v1/chat/completions --------------------------------------------------------------------------------------------
async def at_chat(guest: Guest) -> None:
    """A request whose body comes in pieces, and its answer as events."""
    host, _, port = guest.crowd.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        body = _chat(guest)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode())
        stop = guest.random.randrange(len(body)) if guest.way == "vanish uploading" else len(body)
        for at in range(0, stop, step := len(body) // 4 + 1):
            await guest.rest()
            writer.write(body[at : min(at + step, stop)])
            await writer.drain()
        if guest.way == "vanish uploading":
            return
        guest.asks()
        await _until_answered(guest, reader)
    finally:
        if guest.way.startswith("vanish"):
            writer.transport.abort()
        writer.close()


def _chat(guest: Guest) -> bytes:
    url = {"url": "data:image/png;base64," + base64.b64encode(guest.picture()).decode()}
    parts = [{"type": "image_url", "image_url": url}, {"type": "text", "text": f"What? {guest.random.random()}"}]
    options = {"max_tokens": guest.tokens, "stream": True, "ignore_eos": True, "n": guest.random.choice([1, 1, 2])}
    return json.dumps({"messages": [{"role": "user", "content": parts}], **options}).encode()


async def _until_answered(guest: Guest, reader: asyncio.StreamReader) -> None:
    first = await reader.readline()
    assert first.split()[1] == b"200", first + await reader.read(2_000)
    while line := await reader.readline():
        if line.startswith(b"data: [DONE]"):
            return
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            assert "error" not in event, event
            if event["choices"][0]["delta"].get("content") and await guest.heard():
                return  # cutting is leaving, here
    raise AssertionError("expected data: [DONE], got the end of the connection")


VISITS: dict[str, Callable[[Guest], Awaitable[None]]] = {
    "/v1/stream": at_stream,
    "/v1/realtime": at_realtime,
    "/v1/chat/completions": at_chat,
}
