"""Forks go on like their parents, with what was on its way."""

from __future__ import annotations

import asyncio
import copy
import gc
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from penstock.actors.intake import Intake
from penstock.codecs.decoders import Decoders
from penstock.codecs.frame import Pixels
from penstock.codecs.limits import MediaLimits
from penstock.engine.family import Loaded
from penstock.errors import MediaError
from penstock.streams.event import ReplyDone, ReplyStarted, Resting, Token
from penstock.streams.item import AudioChunk, Image, Text
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Holding, Reader, cancelled, ids, most, quiet, shots, texts, until
from tests.reference.media import sound


def test_fork_goes_on_like_its_parent(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
            for frame in shots(1, 3):  # the third waits for a fourth
                await stream.append(frame)
            reply = await stream.ask(WORDS, most(120))
            await anext(aiter(reply))
            twin = await stream.fork()
            assert twin.reply is not None and twin.reply.id == reply.id
            told = [token async for token in twin.reply]
            mine = await ids(reply)
            assert told and told[0].index == 120 - len(told)
            assert mine[told[0].index :] == [token.id for token in told]
            await quiet(engine)
            assert await stream.transcript() == await twin.transcript()
            # Each goes on by itself: the same next frame and question, then one is closed.
            answers = []
            for one in (stream, twin):
                for frame in shots(2, 2, first=3):
                    await one.append(frame)
                answers.append(await ids(await one.ask("And now?", most(8))))
            assert answers[0] == answers[1]
            await stream.close()
            assert len(await ids(await twin.ask("Still there?", most(8)))) == 8
            await twin.close()

    house.run(work())


def test_fork_takes_along_what_is_held_and_what_waits(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            hum = sound(3, 1.0)
            await stream.append(AudioChunk(hum[None], 16_000))
            await stream.append(shots(1, 1)[0])
            first = await stream.ask(WORDS, most(60))
            later = asyncio.create_task(stream.ask("And now?", most(5)))
            await asyncio.sleep(0)  # it takes its number in its first step
            await stream.append(shots(2, 1, first=1)[0])
            twin = await stream.fork()
            reader = Reader(twin)
            await first.text()
            mine = await ids(await later)
            started = (await reader.see(ReplyStarted, 2))[1]
            await reader.see(ReplyDone, 2)
            assert [token.id for token in reader.of(Token) if token.reply == started.reply] == mine
            for one in (stream, twin):
                await one.append(shots(3, 1, first=2)[0])
            replies = [await one.ask("Well?", most(5)) for one in (stream, twin)]
            assert replies[0].seq == replies[1].seq
            assert await ids(replies[0]) == await ids(replies[1])
            await quiet(engine)
            assert await stream.transcript() == await twin.transcript()
            await twin.close()

    house.run(work())


def test_frames_that_wait_are_shared_by_a_fork(loaded: Loaded) -> None:
    """There may be hundreds of megabytes of them."""
    intake = Intake(loaded.family.spec, Request(), Decoders(MediaLimits(), None))
    (frame,) = shots(1, 1)
    list(intake.take(1, frame))
    twin = intake.fork()
    mine, its = (
        next(one for one in reached(each._timeline) if isinstance(one, Pixels)).pixels for each in (intake, twin)
    )
    assert np.shares_memory(mine, its)
    assert intake.flush(2).segments and twin.flush(2).segments


def reached(thing: Any, known: set[int] | None = None) -> Iterator[Any]:
    """Everything that an object holds."""
    known = set() if known is None else known
    if id(thing) in known or isinstance(thing, type | str | bytes | int):
        return
    known.add(id(thing))
    yield thing
    for one in gc.get_referents(thing):
        if type(one).__module__.startswith("penstock") or isinstance(one, list | tuple | dict | deque):
            yield from reached(one, known)


def test_fork_waits_for_what_is_being_decoded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        holding = Holding(monkeypatch)
        async with house.engine() as engine, await engine.stream() as stream:
            await stream.append(Image(b"slow"))
            fork = asyncio.create_task(stream.fork())
            text = asyncio.create_task(stream.append(Text("later")))
            gone = asyncio.create_task(stream.fork())
            await until(holding.begun.is_set)
            assert await cancelled(gone)
            assert not fork.done() and not text.done()
            holding.go.set()
            twin = await fork
            await text
            mine, its = [await one.ask(WORDS, most(4)) for one in (stream, twin)]
            await mine.text()
            await its.text()
            assert "later" in await texts(engine, stream, house.loaded)
            assert "later" not in await texts(engine, twin, house.loaded)
            assert [row.seen for row in await twin.transcript() if row.seen] == [
                row.seen for row in await stream.transcript() if row.seen
            ]
            await twin.close()

    house.run(work())


def test_a_twin_knows_whether_its_reply_is_held_open(house: House) -> None:
    """In `live` it is, and one that rests says so again; in `turns` replies end by themselves."""
    held = SamplingParams(max_tokens=4, hold=True, ignore_eos=True)

    async def work() -> None:
        async with house.engine(ending(house.loaded)) as engine, await engine.stream(Request(format="live")) as stream:
            reader = Reader(stream)
            await stream.ask(WORDS, SamplingParams(max_tokens=40, hold=True))
            (rests,) = await reader.see(Resting)
            twin = await stream.fork()
            (again,) = await Reader(twin).see(Resting)
            assert (again.reply, again.tokens) == (rests.reply, rests.tokens)
            assert twin.reply is not None and twin.reply.held
            await twin.close()
        async with house.engine() as engine, await engine.stream(Request(format="turns")) as stream:
            reply = await stream.ask(WORDS, msgspec.structs.replace(held, max_tokens=200))
            await anext(aiter(reply))
            twin = await stream.fork()
            assert twin.reply is not None and await twin.reply.text() and await reply.text()
            await twin.close()

    house.run(work())


def test_a_held_reply_that_is_interrupted_has_a_text(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
            reply = await stream.ask(WORDS, SamplingParams(max_tokens=2000, hold=True, ignore_eos=True))
            await anext(aiter(reply))
            await stream.interrupt()
            assert await reply.text() and reply.reason == "interrupted"

    house.run(work())


def test_an_interrupt_of_a_question_that_is_refused_silences_no_later_one(house: House) -> None:
    """The first question fails with its media; the reply to the second is heard while it runs."""

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            await stream.append(Image(b"no picture"))
            first = asyncio.create_task(stream.ask(WORDS, most(4)))
            second = asyncio.create_task(stream.ask("And now?", most(4000)))
            await asyncio.sleep(0)
            await stream.interrupt()
            with pytest.raises(MediaError):
                await first
            reply = await second
            await anext(aiter(reply))
            assert reply.reason is None
            await stream.interrupt()

    house.run(work())


def ending(loaded: Loaded) -> Loaded:
    """The same model, to which every second id means the end."""
    family = copy.copy(loaded.family)
    family.stop_ids = frozenset(range(0, family.data.vocabulary, 2))
    return loaded._replace(family=family)
