"""A stream that leaves out what shows nothing new: its client is told, and what goes in has its place in time."""

from __future__ import annotations

import asyncio

import numpy as np
from penstock.actors.engine import Engine
from penstock.streams.event import Appended, Dropped
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import FRAME_US, WORDS, Reader
from tests.reference.media import frames

PARAMS = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
STANDS = 24


async def seen(engine: Engine, shots: list[np.ndarray], drop_still: float | None) -> tuple[dict[int, int], int]:
    """The positions of the pieces that went in, by the times at which they start, and how many frames did not."""
    request = Request(format="turns", drop_still=drop_still)
    async with await engine.stream(request) as stream:
        reader = Reader(stream)
        for tick, pixels in enumerate(shots):
            await stream.append(VideoFrame(pixels, tick * FRAME_US))
        await (await stream.ask(WORDS, PARAMS)).text()
    await reader.task
    left_out = [one for one in reader.of(Dropped) if one.reason == "still"]
    assert all(one.modality == "video" and one.start_us is not None for one in left_out)
    return {one.start_us or 0: one.position for one in reader.of(Appended)}, sum(one.count for one in left_out)


def test_what_goes_in_has_its_place_in_time(house: House) -> None:
    first, second = frames(1, 1)[0], frames(5, 1)[0]
    shots = [first] * (2 + STANDS) + [second] * 2

    async def work() -> None:
        async with house.engine() as engine:
            (sifted, left_out), (whole, none) = await asyncio.gather(
                seen(engine, shots, 60.0), seen(engine, shots, None)
            )
            assert (left_out, none) == (STANDS, 0)
            assert sifted == {start: whole[start] for start in (0, (2 + STANDS) * FRAME_US)}

    house.run(work())
