"""Sockets are bounded in number and in the time that a request may take, whatever their clients do or leave undone."""

from __future__ import annotations

import asyncio
import time

import pytest
from fake_engine import FakeEngine
from harness import get, handshake, raw_client, run, serving
from penstock.server import http

HALF = b"GET /health HTTP/1.1\r\nHost: local"
WHOLE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def held(url: str, *sent: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """What a socket gets that sends these parts and then nothing, and how long it is held."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    began, answer = time.monotonic(), b""
    reading = asyncio.create_task(reader.read())
    try:
        for part in sent:
            if reading.done():  # what is sent to a closed socket would take back what it has said
                break
            writer.write(part)
            await asyncio.wait([reading], timeout=pause)
        answer = await reading
    except ConnectionError:
        pass
    finally:
        reading.cancel()
        writer.close()
    return answer, time.monotonic() - began


@pytest.mark.parametrize(
    ("sent", "pause"),
    [
        ([], 0.0),
        ([HALF], 0.0),
        ([handshake()[:80]], 0.0),
        ([bytes([byte]) for byte in HALF], 0.006),
        ([WHOLE, HALF], 0.05),
        ([WHOLE.replace(b"\r\n\r\n", b"\r\nContent-Length: 99\r\n\r\n"), b"a", b"b"], 0.05),
    ],
    ids=["nothing", "half a request", "half a handshake", "byte by byte", "half of the next", "half a body"],
)
def test_a_request_that_does_not_end_is_ended(sent: list[bytes], pause: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.3)

    async def main() -> None:
        async with serving(FakeEngine()) as url, raw_client(url) as other:
            answer, seconds = await held(url, *sent, pause=pause)
            assert 0.25 < seconds < 2
            assert b"HTTP/1.1 408 " in answer and b"expected a request within 0.3 s" in answer
            await other.send(type="ping")  # A WebSocket has no such deadline.
            assert (await other.receive())["type"] == "pong"

    run(main)


def test_sockets_are_counted_and_the_longest_without_a_request_goes_first() -> None:
    most = 4 + http.SPARE_SOCKETS

    async def main() -> None:
        async with serving(FakeEngine(), max_connections=4) as url:
            waiting = [asyncio.create_task(held(url, HALF)) for _ in range(3 * most)]
            while sum(task.done() for task in waiting) < 2 * most:  # noqa: ASYNC110 - many tasks, no event
                await asyncio.sleep(0.01)
            assert sum(not task.done() for task in waiting) == most
            for task in waiting:
                if task.done():
                    answer, _ = await task
                    assert not answer or b"open sockets: at most 20, got one more" in answer
            async with raw_client(url) as client:  # Who does send a request still gets in.
                await client.open("a")
                assert (await get(url, "/health"))[0] == 200
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    run(main)
