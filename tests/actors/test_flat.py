"""Memory is flat: streams that have come and gone leave nothing behind, and a long reply costs its tokens only."""

from __future__ import annotations

import gc
import tracemalloc

from penstock.actors.engine import Engine
from penstock.streams.format import BY_NAME
from penstock.streams.item import AudioChunk
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import ids, shots
from tests.reference.media import RATE, sound

CYCLES = 4


async def visit(engine: Engine) -> None:
    """A client that shows, says, asks, interrupts and goes; in every format."""
    for format in BY_NAME:
        async with await engine.stream(Request(format=format)) as stream:
            for frame in shots(3, 6):
                await stream.append(frame)
            await stream.append(AudioChunk(sound(1, 2.5)[None], RATE, 0))
            reply = await stream.ask("What do you see?", SamplingParams(max_tokens=12))
            await stream.append(shots(4, 8)[-1])
            if format == "interrupt":
                await stream.interrupt(0)
            else:
                assert len(await ids(reply)) == 12


def measured() -> tuple[int, int]:
    gc.collect()
    return tracemalloc.get_traced_memory()[0], len(gc.get_objects())


def test_streams_leave_nothing_behind(house: House) -> None:
    async def work() -> tuple[tuple[int, int], tuple[int, int]]:
        async with house.engine() as engine:
            for _ in range(2):
                await visit(engine)
            tracemalloc.start()
            try:
                await visit(engine)
                before = measured()
                for _ in range(CYCLES):
                    await visit(engine)
                return before, measured()
            finally:
                tracemalloc.stop()

    (bytes_before, objects_before), (bytes_after, objects_after) = house.run(work())
    # A stream that is kept holds its spans, its timeline and its events: some twenty objects and, in frames, 80 kB.
    # What Python keeps in its free lists is not more than a few hundred kB in all, and no objects.
    # A visit is a stream in each of five formats.
    assert objects_after - objects_before < 40 * CYCLES, objects_after - objects_before
    assert bytes_after - bytes_before < 60_000 * CYCLES, bytes_after - bytes_before
