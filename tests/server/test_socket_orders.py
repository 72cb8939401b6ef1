"""Orders of one client that cross each other, or for which there is no room: each is answered, nothing stays behind."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from fake_engine import FakeEngine, FakeReply, FakeStream
from harness import raw_client, run, serving
from penstock.errors import InputError
from penstock.server import session
from penstock.streams.event import Error


def test_a_fork_of_a_stream_that_ends_is_refused_and_its_name_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            monkeypatch.setattr(FakeStream, "fork", never)
            await client.send(type="fork", stream="a", **{"as": "b", "ref": "f"})
            await client.send(type="close", stream="a")
            error = (await client.receive_until("error"))[-1]
            assert (error["stream"], error["code"], error["ref"], error["fatal"]) == ("b", "stream_closed", "f", True)
            await client.open("b")

    run(main)


async def never(*_: Any, **__: Any) -> None:
    await asyncio.Event().wait()


def test_a_fork_for_which_there_is_no_room_is_refused_and_its_name_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(session, "WAITING_COMMANDS", 2)

    async def main() -> None:
        engine.hold_append = asyncio.Event()
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            for _ in range(3):
                await client.send(type="text", stream="a", text="x")
                await client.send(type="ping")
                await client.receive_until("pong")  # the first is at work, two wait
            await client.send(type="fork", stream="a", **{"as": "b", "ref": "f"})
            error = (await client.receive_until("error"))[-1]
            assert (error["stream"], error["code"], error["ref"], error["fatal"]) == ("b", "server_limit", "f", True)
            await client.open("b")
            engine.hold_append.set()

    run(main)


def test_an_interrupt_right_behind_a_prompt_cuts_its_reply() -> None:
    """Also it is work that an idle connection, or a server that goes down, waits for."""
    engine = FakeEngine()

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with serving(engine, idle_seconds=0.3) as url, raw_client(url) as client:
            await client.open("a", messages=[{"role": "user", "content": "Tell me."}])
            await client.send(type="interrupt", stream="a", ref="i")
            await asyncio.sleep(0.6)  # a prompt takes longer to be read than a client may be idle
            stream = engine.streams[0]
            reply = FakeReply(1, 1)
            stream._replies[1] = asyncio.create_task(stream._speak(reply, 1_000), name="fake reply 1")
            told = await client.receive_until("done")
            assert (told[-1]["reason"], told[-1]["tokens"]) == ("interrupted", 0)
            assert [message["ref"] for message in told if message["type"] == "accepted"] == ["i"]

    run(main)


def test_an_interrupt_behind_a_prompt_that_is_refused_is_answered() -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a", prompt="Tell me.")
            await client.send(type="interrupt", stream="a", ref="i")
            await client.send(type="ping")
            await client.receive_until("pong")
            engine.streams[0].emit(Error("media", "no picture", 1))
            await client.receive_until("accepted", ref="i")

    run(main)


def test_an_interrupt_before_a_stream_is_open_is_for_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt is the first question that waits, also where another one has been sent meanwhile."""
    engine, calls = FakeEngine(), []
    ask, interrupt = FakeStream.ask, FakeStream.interrupt

    async def asked(self: FakeStream, *rest: Any, **options: Any) -> FakeReply:
        calls.append("ask")
        return await ask(self, *rest, **options)

    async def interrupted(self: FakeStream, at: int | None = None) -> None:
        calls.append("interrupt")
        await interrupt(self, at)

    monkeypatch.setattr(FakeStream, "ask", asked)
    monkeypatch.setattr(FakeStream, "interrupt", interrupted)

    async def main() -> None:
        engine.hold_open = asyncio.Event()
        async with serving(engine) as url, raw_client(url) as client:
            await client.send(type="open", stream="a", prompt="Tell me.")
            await client.send(type="ask", stream="a", question="1", ref="q")
            await client.send(type="interrupt", stream="a", ref="i")
            await client.send(type="ping")
            await client.receive_until("pong")
            engine.hold_open.set()
            await client.receive_until("accepted", ref="q")
        assert calls == ["interrupt", "ask"]

    run(main)


def test_questions_that_wait_are_counted_in_bytes() -> None:
    engine = FakeEngine()

    async def main() -> None:
        engine.hold_ask = asyncio.Event()
        async with serving(engine, waiting_bytes=1000) as url, raw_client(url) as client:
            await client.open("a")
            for number in range(3):
                await client.send(type="ask", stream="a", question="x" * 400, ref=str(number))
            error = (await client.receive_until("error"))[-1]
            assert (error["code"], error["ref"]) == ("server_limit", "2")
            assert re.search(r"at most 1000 bytes may wait, got 1[34]\d\d", error["message"])
            engine.hold_ask.set()
            await client.receive_until("done")
            await client.receive_until("done")
            await client.send(type="ask", stream="a", question="x" * 900, ref="later")
            await client.receive_until("accepted", ref="later")

    run(main)


def test_a_message_nested_too_deeply_ends_nothing() -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            deep = "[" * 5_000 + "]" * 5_000
            for text in (f'{{"type": "open", "stream": "b", "messages": [{{"content": {deep}}}]}}', deep):
                await client.socket.send(text)
                assert (await client.receive_until("error"))[-1]["code"] == "message"
            await client.send(type="ask", stream="a")
            await client.receive_until("done")

    run(main)


def test_all_of_a_message_that_waits_is_counted() -> None:
    engine = FakeEngine()

    async def main() -> None:
        engine.hold_append = asyncio.Event()
        async with serving(engine, waiting_bytes=2000) as url, raw_client(url) as client:
            await client.open("a")
            await client.send(type="text", stream="a", text="x")
            params = {"stop_token_ids": list(range(300))}
            await client.send(type="ask", stream="a", question="", params=params, ref="first")
            await client.send(type="fork", stream="a", **{"as": "b", "ref": "second"}, again=params)
            error = (await client.receive_until("error"))[-1]
            assert (error["code"], error["ref"]) == ("server_limit", "second")
            engine.hold_append.set()
            await client.receive_until("accepted", ref="first")

    run(main)


def test_an_interrupt_cuts_no_reply_to_what_is_asked_behind_it() -> None:
    engine = FakeEngine(tokens=5)

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            await client.send(type="interrupt", stream="a", ref="i")
            await client.send(type="ask", stream="a", question="1")
            done = (await client.receive_until("done"))[-1]
            assert (done["reason"], done["tokens"]) == ("length", 5)

    run(main)


def test_nor_do_several_interrupts_that_are_answered_late() -> None:
    engine = FakeEngine(tokens=5)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            stream, begun = engine.streams[0], asyncio.Event()
            interrupt = stream.interrupt

            async def slow(at: int | None = None) -> None:
                await interrupt(at)
                await begun.wait()

            stream.interrupt = slow  # pyright: ignore[reportAttributeAccessIssue]
            for number in range(3):
                await client.send(type="interrupt", stream="a", ref=str(number))
            await client.send(type="ask", stream="a", question="1")
            await client.receive_until("reply")
            begun.set()
            await client.receive_until("accepted", ref="2")
            for _ in range(5):
                engine.gate.release()
            done = (await client.receive_until("done"))[-1]
            assert (done["reason"], done["tokens"]) == ("length", 5)

    run(main)


def test_nor_where_the_question_before_it_is_refused() -> None:
    engine = FakeEngine(tokens=5)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            stream, refused = engine.streams[0], asyncio.Event()
            ask = stream.ask

            async def picky(question: str = "", *rest: Any, **options: Any) -> FakeReply:
                if question == "1":
                    await refused.wait()
                    raise InputError("its picture was refused")
                reply = await ask(question, *rest, **options)
                refused.set()  # when the other one has begun
                return reply

            stream.ask = picky  # pyright: ignore[reportAttributeAccessIssue]
            await client.send(type="ask", stream="a", question="1")
            await client.send(type="interrupt", stream="a", ref="i")
            await client.send(type="ask", stream="a", question="2")
            told = await client.receive_until("accepted", ref="i")
            engine.gate.release()
            for _ in range(4):
                engine.gate.release()
            done = [*told, *(await client.receive_until("done"))][-1]
            assert (done["reason"], done["tokens"]) == ("length", 5)

    run(main)
