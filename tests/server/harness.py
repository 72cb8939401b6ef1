"""A real server on a free port, a raw WebSocket client that sends what it is told, and a check that no task is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import uvloop
from fake_engine import FakeEngine
from penstock.server.app import bind, serve
from penstock.server.config import ServerConfig
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket

DEADLINE_SECONDS = 15.0


def run(main: Callable[[], Coroutine[Any, Any, None]], loop: str = "asyncio") -> None:
    """Run `main` under a deadline on the named event loop; afterwards no task of it may be left."""

    async def checked() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"expected no task left, got {[task.get_name() for task in left]}"

    factory = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(checked())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; the deadline of `run` bounds it."""
    while not condition():  # noqa: ASYNC110 - the condition is state of code that knows no event.
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running_engine(kind: str) -> AsyncIterator[Any]:
    """An engine of that kind: "fake", or "real" (the small random model); closed afterwards."""
    if kind == "fake":
        engine: Any = FakeEngine()
    else:
        from penstock.actors.engine import Engine

        from tests.fixtures.recipe import model_path

        engine = await Engine.load(model_path("omni"))
    try:
        yield engine
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def serving(engine: Any, **options: Any) -> AsyncIterator[str]:
    """A server for `engine` on a free port; gives its URL. Afterwards it is down and has closed every stream."""
    config = ServerConfig(port=0, **options)
    with bind(config) as listener:
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        server = asyncio.create_task(
            serve(engine, config, listener=listener, on_listening=url.set_result), name="server under test"
        )
        try:
            yield await url
        finally:
            server.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await server


class RawClient:
    """A client that speaks JSON and bytes as a test says."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.welcome: dict[str, Any] = {}

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def send_binary(self, header: dict[str, Any], payload: bytes) -> None:
        head = json.dumps(header).encode()
        await self.socket.send(struct.pack("<H", len(head)) + head + payload)

    async def receive(self) -> dict[str, Any]:
        return json.loads(await self.socket.recv())

    async def receive_until(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """All messages up to the first of this type with these fields, that one included."""
        seen: list[dict[str, Any]] = []
        while not (seen and seen[-1]["type"] == kind and all(seen[-1].get(k) == v for k, v in fields.items())):
            seen.append(await self.receive())
        return seen

    async def open(self, stream: str = "a", **fields: Any) -> dict[str, Any]:
        await self.send(type="open", stream=stream, **fields)
        return (await self.receive_until("opened", stream=stream))[-1]


@contextlib.asynccontextmanager
async def raw_client(url: str, query: str = "", **options: Any) -> AsyncIterator[RawClient]:
    """A raw connection whose welcome has been read."""
    address = url.replace("http", "ws", 1) + "/v1/stream" + query
    async with open_socket(address, compression=None, proxy=None, **options) as socket:
        client = RawClient(socket)
        client.welcome = await client.receive()
        assert client.welcome["type"] == "welcome"
        yield client


async def get(url: str, path: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of a GET."""
    status, body = await get_bytes(url, path)
    return status, json.loads(body)


async def get_bytes(url: str, path: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def shot(url: str, *parts: bytes, abort: bool = False, seconds: float = 1.0) -> bytes:
    """Open a socket, send the parts one by one, and give what comes back until the server closes it, or for `seconds`;
    with `abort` the socket is reset at once instead."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.003)  # What comes in one piece with a handshake is lost.
        if abort:
            writer.transport.abort()
            return answer
        async with asyncio.timeout(seconds):
            while data := await reader.read(1 << 16):
                answer += data
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return answer


def handshake(path: str = "/v1/stream", *headers: str, method: str = "GET") -> bytes:
    """The request that opens a WebSocket."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *headers,
    ]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def frame(opcode: int, data: bytes, final: bool = True) -> bytes:
    """A WebSocket frame of fewer than 126 bytes, with a mask of zeros."""
    return bytes([final << 7 | opcode, 0x80 | len(data)]) + bytes(4) + data
