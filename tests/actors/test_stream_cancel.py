"""Cancelled calls and calls that wait leave a stream usable."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.actors import on_way
from penstock.actors.engine import Engine
from penstock.actors.reply import Reply
from penstock.actors.stream import Stream
from penstock.errors import InputError, StreamClosedError
from penstock.streams.event import Error
from penstock.streams.item import Image, Text
from penstock.streams.requests.request import Request

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Holding, Reader, cancelled, ids, most, shots, texts, until

CALLS = ["append", "text", "ask", "stream", "iterate", "reply", "fork", "transcript", "end later", "interrupt"]


@given(st.lists(st.tuples(st.sampled_from(CALLS), st.integers(0, 12)), min_size=1, max_size=10))
def test_cancelling_any_call_leaves_the_stream_usable(house: House, acts: list[tuple[str, int]]) -> None:
    async def work(engine: Engine) -> None:
        stream = await engine.stream(Request(format="live"))
        words: dict[int, str] = {}
        replies: list[Reply] = []
        spare: list[Stream] = []

        async def call(name: str, number: int) -> None:
            match name:
                case "append":
                    await stream.append(shots(1, 1, first=number)[0])
                case "text":
                    words[await stream.append(Text(f"({number})"))] = f"({number})"
                case "ask":
                    replies.append(await stream.ask(f"[{number}]", most(5)))
                case "stream":
                    spare.append(await engine.stream())
                case "iterate":
                    await anext(stream)
                case "reply" if replies:
                    await replies[-1].text()
                case "fork":
                    spare.append(await stream.fork())
                case "transcript":
                    await stream.transcript()
                case "interrupt":
                    await stream.interrupt()

        for number, (name, ticks) in enumerate(acts):
            task = asyncio.create_task(call(name, number))
            for _ in range(ticks):
                await asyncio.sleep(0)
            await cancelled(task)
            if not task.cancelled():
                task.result()
        assert len(await ids(await stream.ask("last?", most(4)))) == 4
        said = await texts(engine, stream, house.loaded)
        places = [said.index(words[seq]) for seq in sorted(words)]
        assert places == sorted(places)
        assert all(said.count(word) == 1 for word in words.values())
        assert not [
            number for number in range(len(acts)) if f"({number})" in said and f"({number})" not in words.values()
        ]
        for other in (stream, *spare):
            await other.close()

    async def all_of_it() -> None:
        # Two frames are more than the credit, so appends wait.
        async with house.engine() as engine:
            await work(engine)
            await until(lambda: engine.statistics()["streams"] == 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_way, "CREDIT_BYTES", 20_000)
        house.run(all_of_it())


def test_append_waits_for_credit_and_may_be_cancelled(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(on_way, "CREDIT_BYTES", 100)
        holding = Holding(monkeypatch)
        async with house.engine() as engine, await engine.stream() as stream:
            await stream.append(Image(bytes(90)))
            waiting = [asyncio.create_task(stream.append(Image(bytes(90)))) for _ in range(3)]
            await until(holding.begun.is_set)
            assert stream.credit_bytes == 10 and not any(task.done() for task in waiting)
            assert await cancelled(waiting[1])
            ended = asyncio.create_task(stream.append(Text("words need no credit")))
            assert await ended == 2
            holding.go.set()
            assert sorted([await waiting[0], await waiting[2]]) == [3, 4]
            await (await stream.ask(WORDS, most(2))).text()
            assert len([row for row in await stream.transcript() if row.seen]) == 3
            assert stream.credit_bytes == 100

    house.run(work())


def test_append_that_waits_is_refused_when_the_media_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(on_way, "CREDIT_BYTES", 100)
        holding = Holding(monkeypatch)
        async with house.engine() as engine:
            stream = await engine.stream()
            reader = Reader(stream)
            await stream.append(Image(bytes(90)))
            first = asyncio.create_task(stream.append(Image(bytes(90))))
            await until(holding.begun.is_set)
            await stream.end()
            second = await engine.stream()
            await second.append(Image(bytes(90)))
            closing = asyncio.create_task(second.append(Image(bytes(90))))
            await asyncio.sleep(0)
            await second.close()
            with pytest.raises(StreamClosedError):
                await closing
            holding.go.set()
            with pytest.raises(InputError, match="has ended"):
                await first
            await stream.close()
            await reader.task
            assert not reader.of(Error)

    house.run(work())
