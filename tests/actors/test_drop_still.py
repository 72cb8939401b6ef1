"""A stream that leaves out what shows nothing new answers as if it had never been sent."""

from __future__ import annotations

import asyncio

import numpy as np
from penstock.actors.engine import Engine
from penstock.streams.event import Dropped
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import FRAME_US, WORDS, Reader
from tests.reference.media import frames

PARAMS = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
# Longer than the time after which the sampler joins frames by repeats: then both streams have the same ticks.
STANDS_S = 12


async def answer(
    engine: Engine, shots: list[tuple[np.ndarray, int]], drop_still: float | None
) -> tuple[list[int], int]:
    """The tokens of the answer after these frames, and how many of the frames were left out."""
    async with await engine.stream(Request(format="live", drop_still=drop_still)) as stream:
        reader = Reader(stream)
        for pixels, tick in shots:
            await stream.append(VideoFrame(pixels, tick * FRAME_US))
        said = [token.id async for token in await stream.ask(WORDS, PARAMS)]
    await reader.task
    left_out = [one for one in reader.of(Dropped) if one.reason == "still"]
    assert all(one.modality == "video" and one.start_us is not None for one in left_out)
    return said, sum(one.count for one in left_out)


def test_what_is_left_out_was_never_sent(house: House) -> None:
    first, second = frames(1, 2), frames(5, 2)
    last = 2 * STANDS_S
    shown = [(first[0], 0), (first[0], 1), (second[0], last), (second[0], last + 1)]
    stands = [(first[0], tick) for tick in range(2, last)]
    whole = [*shown[:2], *stands, *shown[2:]]

    async def work() -> None:
        async with house.engine() as engine:
            sifted, plain, all_of_it = await asyncio.gather(
                answer(engine, whole, 60.0), answer(engine, shown, None), answer(engine, whole, None)
            )
            assert sifted == (plain[0], len(stands))
            assert all_of_it[1] == 0
            assert all_of_it[0] != plain[0]

    house.run(work())
