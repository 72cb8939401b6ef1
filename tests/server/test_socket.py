"""`/v1/stream` over a real socket: streams, errors, and that what one client does wrong hurts only itself."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from fake_engine import FakeEngine
from harness import raw_client, run, running_engine, serving, until
from penstock.errors import InputError
from penstock.server.session import WAITING_COMMANDS
from penstock.streams.event import Token
from penstock.streams.item import Item, Text
from websockets.exceptions import ConnectionClosed


def test_the_welcome_says_what_runs_here() -> None:
    async def main() -> None:
        async with serving(FakeEngine(), max_streams=3) as url, raw_client(url) as client:
            assert client.welcome["version"] == 1
            assert client.welcome["model"] == "fake"
            assert client.welcome["modalities"] == ["text", "image", "video", "audio"]
            assert client.welcome["limits"]["streams"] == 3

    run(main)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_one_exchange_from_open_to_closed(loop: str) -> None:
    engine = FakeEngine(tokens=2)

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as client:
            opened = await client.open("door", format="live", ref="o")
            assert (opened["format"], opened["trained"], opened["ref"]) == ("live", False, "o")
            await client.send_binary({"type": "frame", "stream": "door", "pts_us": 40, "ref": "f"}, b"jpeg")
            accepted = (await client.receive_until("accepted"))[-1]
            assert accepted == {"type": "accepted", "stream": "door", "seq": 1, "ref": "f"}
            await client.send(type="ask", stream="door", question="Who?", params={"max_tokens": 2})
            told = await client.receive_until("done")
            tokens = [message for message in told if message["type"] == "token"]
            assert [token["text"] for token in tokens] == ["w0 ", "w1 "]
            assert tokens[0]["seen"]["stop_us"] == 40
            numbers = [message["number"] for message in told if message.get("number")]
            assert numbers == sorted(numbers)
            answers = [message for message in told if message["type"] == "accepted"]
            assert [answer["reply"] for answer in answers] in ([tokens[0]["reply"]], [])  # It may also come later.
            await client.send(type="close", stream="door")
            assert (await client.receive_until("closed"))[-1]["reason"] == "closed"
        assert bytes(engine.streams[0].items[0].data) == b"jpeg"  # type: ignore[union-attr]
        assert not engine.open

    run(main, loop)


def test_malformed_messages_leave_everything_running(engine_kind: str) -> None:
    async def main() -> None:
        async with running_engine(engine_kind) as engine, serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            await client.socket.send("{")
            assert (await client.receive())["path"] == "$"
            await client.send(type="sing", stream="a", ref="r")
            error = await client.receive()
            assert (error["code"], error["path"], error["stream"], error["ref"]) == ("message", "$.type", "a", "r")
            await client.socket.send(b"\xff\xff{")
            assert "65535" in (await client.receive())["message"]
            await client.send_binary({"type": "frame", "stream": "a", "pts_us": "now"}, b"x")
            error = await client.receive()
            assert (error["path"], error["fatal"]) == ("$.pts_us", False)
            await client.send(type="ask", stream="a", question="still there?", params={"max_tokens": 3})
            assert (await client.receive_until("done"))[-1]["tokens"] <= 3

    run(main)


def test_errors_name_the_stream(engine_kind: str) -> None:
    async def main() -> None:
        async with running_engine(engine_kind) as engine, serving(engine) as url, raw_client(url) as client:
            await client.send(type="text", stream="nowhere", text="x")
            error = await client.receive()
            assert (error["code"], error["stream"]) == ("unknown_stream", "nowhere") and "nowhere" in error["message"]
            await client.open("a")
            await client.send(type="open", stream="a")
            error = await client.receive()
            assert (error["code"], error["stream"]) == ("stream_name", "a") and "'a'" in error["message"]
            await client.send(type="close", stream="a")
            await client.receive_until("closed")
            await client.send(type="text", stream="a", text="too late")
            error = await client.receive()
            assert (error["code"], error["stream"]) == ("stream_closed", "a") and "'a'" in error["message"]
            await client.open("a")  # The name is free again.
            await client.send(type="ping", ref="p")
            assert (await client.receive_until("pong"))[-1] == {"type": "pong", "ref": "p"}

    run(main)


def test_a_stream_that_the_engine_refuses_is_not_open() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url, raw_client(url) as client:
            await client.send(type="open", stream="b", system="refuse me")
            await client.send(type="text", stream="b", text="x", ref="t")
            error = await client.receive()
            assert (error["code"], error["stream"], error["fatal"]) == ("input", "b", True)
            assert (await client.receive())["ref"] == "t"
            await client.open("b")

    run(main)


def test_messages_that_wait_are_counted() -> None:
    engine = FakeEngine()

    async def main() -> None:
        engine.hold_append = asyncio.Event()
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            await client.send(type="text", stream="a", text="x")
            for _ in range(WAITING_COMMANDS + 10):
                await client.send(type="end", stream="a")
            error = (await client.receive_until("error"))[-1]
            assert (error["code"], error["stream"]) == ("server_limit", "a")
            assert str(WAITING_COMMANDS) in error["message"]
            engine.hold_append.set()

    run(main)


def test_an_input_that_the_engine_refuses_ends_nothing() -> None:
    engine = FakeEngine()

    def refuse(item: Item) -> None:
        if not isinstance(item, Text):
            raise InputError("frame: expected 3 channels, got 4")

    engine.refuse = refuse

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            await client.send_binary({"type": "frame", "stream": "a", "pts_us": 0, "ref": "1"}, b"x")
            error = await client.receive()
            assert (error["code"], error["stream"], error["ref"]) == ("input", "a", "1")
            await client.send(type="text", stream="a", text="x", ref="2")
            assert (await client.receive_until("accepted"))[-1]["seq"] == 1

    run(main)


def test_a_stream_whose_append_waits_holds_up_no_other() -> None:
    engine = FakeEngine()

    async def main() -> None:
        engine.hold_append = asyncio.Event()
        async with serving(engine, waiting_bytes=5_000) as url, raw_client(url) as client:
            await client.open("slow")
            await client.open("other")
            await client.send(type="ask", stream="slow", question="")
            await client.receive_until("done")
            for _ in range(2):
                await client.send_binary({"type": "frame", "stream": "slow", "pts_us": 0}, bytes(2_000))
            await client.send(type="ask", stream="other", question="")
            assert (await client.receive_until("done"))[-1]["stream"] == "other"
            await client.send_binary({"type": "frame", "stream": "slow", "pts_us": 0}, bytes(2_000))
            error = (await client.receive_until("error"))[-1]
            assert (error["code"], error["stream"]) == ("server_limit", "slow") and "5000" in error["message"]
            await client.send(type="close", stream="slow")  # Does not wait for the appends.
            assert (await client.receive_until("closed"))[-1]["stream"] == "slow"
            engine.hold_append.set()

    run(main)


def test_interrupt_overtakes_media_but_not_the_question_before_it() -> None:
    engine = FakeEngine(tokens=1_000)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            engine.hold_ask = asyncio.Event()
            await client.send(type="ask", stream="a", question="1")
            await client.send(type="interrupt", stream="a")
            await client.send(type="ping")
            await client.receive_until("pong")  # Both have been received, the reply has not begun.
            engine.hold_ask.set()
            assert (await client.receive_until("done"))[-1]["reason"] == "interrupted"
            await client.send(type="ask", stream="a", question="2")
            await client.receive_until("reply")
            engine.hold_append = asyncio.Event()
            await client.send_binary({"type": "frame", "stream": "a", "pts_us": 0}, b"x")
            await client.send(type="interrupt", stream="a")
            assert (await client.receive_until("done"))[-1]["reason"] == "interrupted"
            assert not engine.streams[0].items
            engine.hold_append.set()

    run(main)


def test_media_goes_on_while_a_question_waits_for_its_turn() -> None:
    engine = FakeEngine()

    async def main() -> None:
        engine.gate = asyncio.Semaphore(1)
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            await client.send(type="ask", stream="a", question="1")
            await client.receive_until("token")
            engine.hold_ask = asyncio.Event()
            await client.send(type="ask", stream="a", question="2", ref="second")
            await client.send(type="text", stream="a", text="behind it", ref="t")
            assert (await client.receive_until("accepted", ref="t"))[-1]["seq"] == 3
            await client.send(type="interrupt", stream="a")  # For the reply that runs.
            assert (await client.receive_until("done"))[-1]["reply"] == 1
            engine.hold_ask.set()
            assert (await client.receive_until("accepted", ref="second"))[-1]["seq"] == 2

    run(main)


def test_fork_opens_a_second_stream() -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine, max_streams=2) as url, raw_client(url) as client:
            await client.open("a")
            await client.send(type="text", stream="a", text="hello")
            await client.send(type="fork", stream="a", **{"as": "b", "ref": "f"})
            forked = (await client.receive_until("forked"))[-1]
            assert (forked["stream"], forked["source"], forked["ref"]) == ("b", "a", "f")
            assert engine.streams[1].items == [Text("hello")]
            await client.send(type="fork", stream="a", **{"as": "c"})
            error = (await client.receive_until("error"))[-1]
            assert error["code"] == "server_limit" and "2" in error["message"]
            assert (error["stream"], error["fatal"]) == ("c", True)  # the copy, which was never opened
            await client.send(type="fork", stream="a", **{"as": "b"})
            error = (await client.receive_until("error"))[-1]
            assert (error["stream"], error["code"], error["fatal"]) == ("b", "stream_name", False)  # `b` goes on
            await client.send(type="ask", stream="b")
            assert (await client.receive_until("done"))[-1]["stream"] == "b"

    run(main)


def test_a_failing_stream_ends_alone_and_tells_no_secrets() -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            await client.open("b")
            engine.streams[0].fail("the engine has failed")
            told = await client.receive_until("closed")
            assert [message["type"] for message in told] == ["error", "closed"] and told[0]["fatal"]
            engine.break_events = True
            await client.send(type="ask", stream="b")
            error = (await client.receive_until("error"))[-1]
            assert (error["stream"], error["code"], error["fatal"]) == ("b", "internal", True)
            assert "secret" not in error["message"]
            engine.break_events = False
            await client.open("c")

    run(main)


def test_a_client_gone_in_mid_reply_takes_its_streams_along() -> None:
    engine = FakeEngine(tokens=10_000)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(3)
        async with serving(engine) as url:
            async with raw_client(url) as client, raw_client(url) as stays:
                await stays.open("s")
                await client.open("a")
                await client.open("b")
                await client.send(type="ask", stream="a")
                await client.receive_until("token")
                client.socket.transport.abort()
                await until(lambda: len(engine.open) == 1)
                engine.gate.release()
                await stays.send(type="text", stream="s", text="x", ref="1")
                await stays.receive_until("accepted")
        assert all(stream.closed for stream in engine.streams)

    run(main)


def test_a_client_that_does_not_read_loses_only_its_own_connection() -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine, unread_bytes=200_000) as url, raw_client(url) as other:
            await other.open("o")
            async with raw_client(url, max_queue=1) as client:
                await client.open("a")
                slow = engine.streams[1]
                while not slow.closed:
                    slow.emit(Token(1, 0, 0, "x" * 10_000, None))
                    await asyncio.sleep(0)
                await other.send(type="ask", stream="o")
                assert (await other.receive_until("done"))[-1]["stream"] == "o"
                with pytest.raises(ConnectionClosed):
                    while True:
                        await client.receive()
                assert client.socket.close_code == 1013

    run(main)


def test_output_that_stays_unread_too_long_ends_the_connection() -> None:
    engine = FakeEngine()

    async def main() -> None:
        options = {"unread_seconds": 0.2, "unread_bytes": 100_000_000}
        async with serving(engine, **options) as url, raw_client(url, max_queue=1) as client:
            await client.open("a")
            for _ in range(2_000):
                engine.streams[0].emit(Token(1, 0, 0, "x" * 10_000, None))
            await until(lambda: engine.streams[0].closed)
            client.socket.transport.abort()

    run(main)


def test_an_idle_connection_is_closed_but_not_during_a_reply() -> None:
    engine = FakeEngine(tokens=2)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with serving(engine, idle_seconds=0.15) as url, raw_client(url) as client:
            await client.open("a")
            await client.send(type="ask", stream="a")
            await client.receive_until("reply")
            await asyncio.sleep(0.4)
            engine.gate.release()
            engine.gate.release()
            await client.receive_until("done")
            ended = asyncio.get_running_loop().time()
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await client.receive()
            assert asyncio.get_running_loop().time() - ended > 0.14, "as long behind a reply as behind a message"
            assert client.socket.close_code == 1008
            assert "idle" in (client.socket.close_reason or "")
            assert engine.streams[0].closed

    run(main)
