"""How far is encoded ahead for a reply that rests before anything goes in."""

from __future__ import annotations

import asyncio

import pytest
from penstock.actors import schedule
from penstock.streams.event import Appended, Dropped
from penstock.streams.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Reader, ids, shots, until

LONG = SamplingParams(max_tokens=1000, ignore_eos=True)


def test_a_camera_has_one_piece_encoded_while_the_model_speaks(house: House) -> None:
    """What is not encoded yet may still be replaced by something newer."""

    async def work() -> None:
        request = Request(format="per-frame", policy="latest")
        async with house.engine() as engine, await engine.stream(request) as stream:
            reply = await stream.ask(WORDS, LONG)
            reading = asyncio.create_task(ids(reply))
            film = shots(1, 8)
            for pair in range(4):
                for frame in film[2 * pair : 2 * pair + 2]:
                    await stream.append(frame)
                await until(lambda pair=pair: engine.statistics()["segments_waiting"] == pair)
            assert not reading.done()
            await stream.interrupt()
            await reading

    house.run(work())


def test_a_second_that_is_larger_than_what_is_encoded_ahead_goes_in(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        monkeypatch.setattr(schedule, "_AHEAD_ROWS", 1)
        request = Request(format="units", unit_tokens=2)
        async with house.engine() as engine, await engine.stream(request) as stream:
            reader = Reader(stream)
            reply = await stream.ask(WORDS, SamplingParams(max_tokens=6, ignore_eos=True))
            reading = asyncio.create_task(ids(reply))
            film = shots(1, 4)
            for pair in range(2):  # a second each
                for frame in film[2 * pair : 2 * pair + 2]:
                    await stream.append(frame)
                await until(lambda: engine.statistics()["segments_waiting"] == 0)
            await reader.see(Appended, 1)
            await stream.end()
            assert len(await reading) == 6
            assert len(await reader.see(Appended, 2)) == 2 and not reader.of(Dropped)

    house.run(work())
