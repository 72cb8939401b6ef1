"""What is asked aside is answered as by a stream that was interrupted there, and the stream never knows of it."""

from __future__ import annotations

import asyncio

import pytest
from penstock.actors.engine import Engine
from penstock.actors.stream import Stream
from penstock.streams.item import Text
from penstock.streams.requests.request import Request

from tests.actors.conftest import House
from tests.actors.watch import WORDS, ids, most, quiet, shots, until

NARRATION, ANSWER, QUESTION = 60, 12, "And what is in front?"


async def watched(engine: Engine) -> Stream:
    """A stream that has been shown two pairs of frames."""
    stream = await engine.stream(Request(format="live"))
    for frame in shots(1, 4):
        await stream.append(frame)
    return stream


async def replayed(engine: Engine, tokens: int) -> list[int]:
    """The answer of a stream whose narration was cut after so many tokens, and which was asked then."""
    async with await watched(engine) as stream:
        reply = await stream.ask(WORDS, most(NARRATION))
        reader = aiter(reply)
        for _ in range(tokens):
            await anext(reader)
        await stream.interrupt(at=tokens - 1)
        return await ids(await stream.ask(QUESTION, most(ANSWER)))


def test_an_answer_aside_is_that_of_a_replayed_stream_and_the_narration_goes_on(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine:
            async with await watched(engine) as alone:
                expected = await ids(await alone.ask(WORDS, most(NARRATION)))
            async with await watched(engine) as stream:
                reply = await stream.ask(WORDS, most(NARRATION))
                reader = aiter(reply)
                for _ in range(5):
                    await anext(reader)
                async with stream.aside(QUESTION, most(ANSWER)) as answer:
                    said = await ids(answer)
                    came = reply.count
                assert await ids(reply) == expected
            assert 5 <= came
            assert any([said == await replayed(engine, tokens) for tokens in range(5, min(came, NARRATION - 1) + 1)])

    house.run(work())


def test_many_asides_hold_one_copy_of_the_past(house: House) -> None:
    """A history of twenty pages and eight that ask at once: each holds a page of its own, or two."""

    async def work() -> None:
        async with house.engine(slots=16) as engine, await engine.stream(Request(format="turns")) as stream:
            await stream.append(Text("what is there to see and to hear in this scene now ? " * 40))
            await ids(await stream.ask(WORDS, most(4)))
            await quiet(engine)
            before, fewest = engine.statistics()["pages_free"], 10**9
            held = engine.statistics()["pages"] - before
            begun = asyncio.Event()
            inside = 0

            async def one(number: int) -> list[int]:
                nonlocal inside, fewest
                async with stream.aside(f"Question {number}?", most(ANSWER)) as answer:
                    inside += 1
                    if inside == 8:
                        begun.set()
                    await begun.wait()
                    said = await ids(answer)
                    fewest = min(fewest, engine.statistics()["pages_free"])
                    return said

            answers = await asyncio.gather(*(one(number) for number in range(8)))
            assert held >= 15
            assert all(len(said) == ANSWER for said in answers)
            assert before - fewest <= 2 * 8
            await until(lambda: engine.statistics()["pages_free"] == before)

    house.run(work())


@pytest.mark.parametrize("how", ["error", "cancelled"])
def test_an_aside_that_is_left_early_leaves_nothing(house: House, how: str) -> None:
    async def work() -> None:
        async with house.engine() as engine, await watched(engine) as stream:
            inside = asyncio.Event()

            async def ask() -> None:
                async with stream.aside(QUESTION, most(500)):
                    if how == "error":
                        raise KeyError("what a program does wrong")
                    inside.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(ask())
            if how == "error":
                with pytest.raises(KeyError):
                    await task
            else:
                await inside.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert engine.statistics()["streams"] == 1
            assert len(await ids(await stream.ask(WORDS, most(ANSWER)))) == ANSWER

    house.run(work())
