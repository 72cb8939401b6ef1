"""A WebSocket that is lost anywhere: the connection goes on over the next one, and nothing is lost or comes twice."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from unittest import mock

import pytest
from broken_line import line
from fake_engine import FakeEngine
from harness import RawClient, raw_client, run, serving, until
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.server.client import Connection, connect
from penstock.server.errors import HangUp
from penstock.server.outbox import SendQueue
from penstock.streams.event import Event
from penstock.streams.item import Text, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def opened(client: RawClient) -> str:
    """Have the connection kept, and open a stream; the token."""
    await client.send(type="keep")
    token = (await client.receive_until("kept"))[-1]["token"]
    await client.open()
    return token


async def talk(connection: Connection) -> dict[str, Any]:
    """A conversation on two streams; what came of it: numbers of inputs, words, and all events."""

    async def read(stream: Any) -> list[Event]:
        return [event async for event in stream]

    async with await connection.stream(Request(format="live"), name="a") as stream:
        reader = asyncio.create_task(read(stream))
        seqs = [await stream.append(Text("Look.")), await stream.append(VideoFrame(bytes(600), 0))]
        texts = [await (await stream.ask("Who?", SamplingParams(max_tokens=9))).text()]
        async with await stream.fork() as copy:
            answers = await asyncio.gather(stream.ask("And?"), copy.ask("Or?", SamplingParams(max_tokens=5)))
            texts += [await answer.text() for answer in answers]
        seqs.append(await stream.append(Text("Bye.")))
    events = [(type(one).__name__, one.number) for one in await reader]
    return {"seqs": seqs, "texts": texts, "events": events}


@given(st.lists(st.integers(300, 3000), min_size=1, max_size=5))
@settings(max_examples=20)
def test_nothing_is_lost_or_comes_twice_wherever_the_connection_breaks(breaks: list[int]) -> None:
    """The same conversation over a line that holds is the measure. The first connection has to come about."""
    logging.disable(logging.CRITICAL)

    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine) as url, connect(url) as plain:
            expected = await talk(plain)
            async with line(url, [900 + breaks[0], *breaks[1:]]) as (there, wire), connect(there) as connection:
                assert await talk(connection) == expected
                assert connection.resumed
                assert wire.broken >= connection.resumed
            heard = [[type(one).__name__ for one in stream.items] for stream in engine.streams]
            assert heard[: len(heard) // 2] == heard[len(heard) // 2 :]
        assert all(stream.closed for stream in engine.streams)

    try:
        run(main)
    finally:
        logging.disable(logging.NOTSET)


def test_a_client_that_does_not_come_back_leaves_nothing() -> None:
    engine = FakeEngine(tokens=100)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with serving(engine, resume_seconds=0.2) as url:
            async with raw_client(url) as client:
                await client.send(type="keep")
                kept = (await client.receive_until("kept"))[-1]
                assert kept["seconds"] == 0.2
                await client.open()
                client.socket.transport.abort()
            stream = engine.streams[0]
            await asyncio.sleep(0.05)
            assert not stream.closed
            await until(lambda: stream.closed)
            async with raw_client(url) as late:
                await late.send(type="resume", token=kept["token"], received=0)
                refused = await late.receive()
                assert (refused["code"], refused["stream"]) == ("resume", None)
                await late.open()  # it is a connection like any other

    run(main)


def test_who_closes_a_connection_or_has_not_asked_does_not_keep_it() -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url:
            for asks in (True, False):
                async with raw_client(url) as client:
                    if asks:
                        await client.send(type="keep")
                    await client.open()
                    if not asks:
                        client.socket.transport.abort()
                await until(lambda: engine.streams[-1].closed)

    run(main)


def test_another_socket_takes_over_before_the_loss_is_noticed() -> None:
    """The first one is still open. It gets nothing more, and what it sends is not heard."""
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as first, raw_client(url) as second:
            token = await opened(first)
            await first.send(type="text", stream="a", text="one", ref="1")
            said = await first.receive_until("accepted")
            await second.send(type="resume", token=token, received=1 + len(said))
            assert await second.receive() == {"type": "resumed", "received": 2}
            await second.send(type="text", stream="a", text="two", ref="2")
            assert (await second.receive_until("accepted"))[-1]["seq"] == 2
            with pytest.raises(ConnectionClosed):
                while True:
                    assert (await first.receive())["type"] != "accepted"
            assert len(engine.streams[0].items) == 2

    run(main)


@pytest.mark.parametrize("noticed", [True, False])
def test_a_full_server_lets_a_client_in_that_comes_back(noticed: bool) -> None:
    """The old WebSocket is none more to the server, or it still is the only one that may be open."""

    async def main() -> None:
        async with serving(FakeEngine(), max_connections=1) as url, line(url, []) as (there, wire):
            async with connect(there) as connection, await connection.stream(Request(format="live")) as stream:
                assert await stream.append(Text("Look.")) == 1
                wire.cut() if noticed else wire.lose()
                assert await stream.append(Text("And?")) == 2
                assert connection.resumed == 1

    run(main)


def test_who_only_says_that_it_comes_back_is_let_in_once_and_may_do_nothing() -> None:
    async def main() -> None:
        async with serving(FakeEngine(), max_connections=1) as url:
            with pytest.raises(InvalidStatus):
                async with raw_client(url, "?resume"):
                    pass  # nobody is there to be gone on with, but there is a place
                async with raw_client(url), raw_client(url, "?resume"):
                    pass  # the only one cannot be gone on with
            async with raw_client(url) as first:
                await opened(first)
                async with raw_client(url, "?resume") as second:
                    with pytest.raises(InvalidStatus):
                        async with raw_client(url, "?resume"):
                            pass
                    await second.send(type="open", stream="b")
                    with pytest.raises(ConnectionClosed):
                        await second.receive()
                    assert second.socket.close_code == 1013
                await first.send(type="text", stream="a", text="one", ref="1")  # nothing has happened to it
                await first.receive_until("accepted")

    run(main)


@pytest.mark.parametrize("received", [-1, 99])
def test_messages_that_were_never_sent_cannot_be_gone_on_from(received: int) -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as first, raw_client(url) as second:
            token = await opened(first)
            await second.send(type="resume", token=token, received=received)
            assert (await second.receive())["code"] == ("message" if received < 0 else "resume")
            await first.send(type="text", stream="a", text="one", ref="1")  # nothing has happened to it
            await first.receive_until("accepted")

    run(main)


def test_keep_is_refused_once_both_sides_count_and_changes_nothing() -> None:
    """Also where the connection has been gone on with: a number that began again would let messages come twice."""
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as second:
            async with raw_client(url) as first:
                token = await opened(first)
                await first.send(type="keep")
                assert (await first.receive())["code"] == "resume"
                first.socket.transport.abort()
            await second.send(type="resume", token=token, received=2)  # `opened` and the error
            assert await second.receive() == {"type": "resumed", "received": 2}
            await second.send(type="keep")
            assert (await second.receive())["code"] == "resume"
            await second.send(type="text", stream="a", text="one", ref="1")
            assert (await second.receive_until("accepted"))[-1]["seq"] == 1

    run(main)


def test_what_is_over_the_limit_is_not_kept() -> None:
    """A client that has not read what the server kept: its connection cannot go on, and it is told."""
    engine = FakeEngine(tokens=200)

    async def main() -> None:
        async with serving(engine, unread_bytes=4096) as url, raw_client(url) as second:
            async with raw_client(url) as first:
                token = await opened(first)
                await first.send(type="ask", stream="a")
                await first.receive_until("done")
                first.socket.transport.abort()
            await second.send(type="resume", token=token, received=3)
            assert (await second.receive())["code"] == "resume"

    run(main)


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=12), received=st.integers(0, 12), waits=st.integers(0, 400)
)
def test_what_is_sent_once_more_takes_no_room_from_what_waits(sizes: list[int], received: int, waits: int) -> None:
    """Frames were sent and kept, one waits, the client comes back: what may be put then is what might be put before.
    All of it comes, in order, and none of it is old: its seconds begin when the client can read it."""

    async def main() -> None:
        clock = asyncio.get_running_loop()
        queue = SendQueue(400, 20.0)
        queue.count()
        for number, size in enumerate(sizes):
            queue.put(bytes([number]) * size)
            await queue.next()
            queue.done()
        kept = [bytes([number]) * size for number, size in enumerate(sizes)]
        while sum(map(len, kept)) > 400:
            kept.pop(0)
        queue.put(waiting := b"w" * waits)
        assert queue.rewind(gone := len(sizes) - min(received, len(kept)), b"resumed")
        queue.put(last := b"l" * (400 - waits))
        with pytest.raises(HangUp, match="401 bytes unread"):
            queue.put(b"!")
        expected = [b"resumed", *kept[len(kept) - len(sizes) + gone :], waiting, last]
        later = clock.time() + 21
        with mock.patch.object(clock, "time", lambda: later):
            for frame in expected[:-2]:
                assert await queue.next() == frame
                queue.done()
        for frame in expected[-2:]:
            assert await queue.next() == frame
            queue.done()

    run(main)
