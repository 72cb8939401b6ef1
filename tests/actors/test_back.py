"""A copy that goes back is as the stream was then: it says what a stream says to which no more had come."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.actors.stream import Stream
from penstock.errors import InputError
from penstock.streams.event import Evicted
from penstock.streams.item import AudioChunk, Text
from penstock.streams.requests.request import Request
from penstock.streams.requests.window import Window

from tests.actors.conftest import House
from tests.actors.watch import FRAME_US, WORDS, Reader, ids, most, quiet, shots
from tests.reference.media import sound

# Pairs of frames, words, and questions, at whose ends nothing is held.
TOLD: list[Any] = [
    *(shots(1, 2), Text("A door."), shots(2, 2, first=2), "What is it?", shots(3, 2, first=4), Text("So.")),
    *("And now?", shots(4, 2, first=6)),
]


async def tell(stream: Stream, told: list[Any]) -> list[int]:
    """The number of the last input of each."""
    numbers = []
    for one in told:
        if isinstance(one, str):
            await ids(await stream.ask(one, most(4)))
        else:
            for item in [one] if isinstance(one, Text) else one:
                await stream.append(item)
        numbers.append(stream.next_seq() - 1)
    return numbers


async def said(stream: Stream) -> list[Any]:
    """What follows in the stream after a gap, and where it stands then."""
    for item in (*shots(9, 2, first=60), AudioChunk(sound(5, 1.0)[None], 16_000)):
        await stream.append(item)
    return [
        await ids(await stream.ask("Well?", most(6))),
        msgspec.to_builtins(await stream.transcript())[-1]["positions"],
    ]


@given(place=st.integers(0, len(TOLD) - 1), by_time=st.booleans())
def test_a_copy_that_goes_back_is_as_the_stream_was(house: House, place: int, by_time: bool) -> None:
    timed, last = by_time and isinstance(TOLD[place], list), place
    while timed and last + 1 < len(TOLD) and not isinstance(TOLD[last + 1], list):
        last += 1  # words have no time of their own

    async def work() -> None:
        async with house.engine() as engine:
            async with await engine.stream(Request(format="turns")) as stream:
                numbers = await tell(stream, TOLD)
                back = {"back_to_us": TOLD[place][-1].pts_us} if timed else {"back_to": numbers[place]}
                async with await stream.fork(**back) as copy:  # pyright: ignore[reportArgumentType]
                    mine = await said(copy)
                    assert copy.next_seq() > numbers[-1]
                assert await ids(await stream.ask("Still there?", most(2)))
            async with await engine.stream(Request(format="turns")) as other:
                await tell(other, TOLD[: last + 1])
                assert await said(other) == mine

    house.run(work())


def test_a_reply_that_ran_there_is_closed(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
            numbers = await tell(stream, [shots(1, 2)])
            reply = await stream.ask(WORDS, most(60))
            await anext(aiter(reply))
            inside = (await tell(stream, [shots(2, 2, first=2)]))[0]
            await ids(reply)
            await quiet(engine)
            for number in (numbers[0], inside):
                async with await stream.fork(back_to=number) as copy:
                    assert copy.reply is None
                    await ids(await copy.ask("And now?", most(4)))
            await stream.end()
            async with await stream.fork(back_to=inside) as copy:
                await copy.append(shots(3, 1, first=9)[0])  # media may come again

    house.run(work())


def test_what_is_not_held_is_refused_with_what_is(house: House) -> None:
    request = Request(format="turns", window=Window(rows=64, text_rows=16))

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(request) as stream:
            reader = Reader(stream)
            numbers = await tell(stream, [Text("Look."), *(shots(n, 2, first=2 * n) for n in range(16)), "What?"])
            await reader.see(Evicted)
            for back in ({"back_to": numbers[0]}, {"back_to": 999}, {"back_to_us": FRAME_US}):
                with pytest.raises(InputError, match="expected .* got"):
                    await stream.fork(**back)  # pyright: ignore[reportArgumentType]
            with pytest.raises(InputError, match="one of"):
                await stream.fork(back_to=1, back_to_us=1)
            for back in ({"back_to": numbers[-3]}, {"back_to": numbers[-1]}, {"back_to_us": 30 * FRAME_US}):
                async with await stream.fork(**back) as copy:  # pyright: ignore[reportArgumentType]
                    assert await ids(await copy.ask(WORDS, most(3)))
            await stream.close()
            await reader.task

    house.run(work())
