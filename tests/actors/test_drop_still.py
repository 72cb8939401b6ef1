"""A stream that leaves out what shows nothing new: its client is told, and what goes in has its place in time."""

from __future__ import annotations

import asyncio

import numpy as np
from penstock.actors.engine import Engine
from penstock.streams.event import Appended, Dropped
from penstock.streams.item import AudioBytes, Item, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import FRAME_US, WORDS, Reader
from tests.reference.media import frames, sound, wav

PARAMS = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
STANDS = 24


async def seen(engine: Engine, items: list[Item], drop_still: float | None) -> tuple[dict[int, int], list[Dropped]]:
    """The positions of the pieces that went in, by the times at which they start, and what did not."""
    request = Request(format="turns", drop_still=drop_still)
    async with await engine.stream(request) as stream:
        reader = Reader(stream)
        for item in items:
            await stream.append(item)
        await (await stream.ask(WORDS, PARAMS)).text()
    await reader.task
    left_out = reader.of(Dropped)
    assert all(one.reason == "still" and one.start_us is not None for one in left_out)
    return {one.start_us or 0: one.position for one in reader.of(Appended)}, left_out


def compare(house: House, items: list[Item], went_in: list[int], count: int) -> None:
    """The pieces that start at these times go in, where they stand if all do; so much is left out."""

    async def work() -> None:
        async with house.engine() as engine:
            (sifted, left_out), (whole, nothing) = await asyncio.gather(
                seen(engine, items, 60.0), seen(engine, items, None)
            )
            assert (sum(one.count for one in left_out), nothing) == (count, [])
            assert sifted == {start: whole[start] for start in went_in}

    house.run(work())


def test_a_frame_that_goes_in_has_its_place_in_time(house: House) -> None:
    first, second = frames(1, 1)[0], frames(5, 1)[0]
    shots = enumerate([first] * (2 + STANDS) + [second] * 2)
    items: list[Item] = [VideoFrame(pixels, tick * FRAME_US) for tick, pixels in shots]
    compare(house, items, [0, (2 + STANDS) * FRAME_US], STANDS)


def test_sound_that_goes_in_has_its_place_in_time_in_a_file(house: House) -> None:
    """All of it is one input: what was left out stays behind the pieces that wait to be encoded."""
    heard = sound(1, 2.0)
    samples = np.concatenate([heard, heard, 0 * heard, 0 * heard, heard])
    compare(house, [AudioBytes(wav(samples), final=True)], [0, 2_000_000, 8_000_000], 4 * 16_000)


def test_a_copy_that_goes_back_does_so_in_the_time_that_was_dropped(house: House) -> None:
    items = [VideoFrame(frames(1, 1)[0], tick * FRAME_US) for tick in range(20)]

    async def work() -> None:
        async with house.engine() as engine:
            told = []
            for shown in (items, items[:10]):
                async with await engine.stream(Request(format="turns", drop_still=60.0)) as stream:
                    for item in shown:
                        await stream.append(item)
                    async with await stream.fork(back_to_us=items[9].pts_us) as copy:
                        await (await copy.ask(WORDS, PARAMS)).text()
                        told.append([row.positions for row in await copy.transcript()])
            assert told[0] == told[1]

    house.run(work())
