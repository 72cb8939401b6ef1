"""How far is encoded ahead for a reply that rests before anything goes in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from penstock.actors.messages import Announce
from penstock.engine.command import Spans
from penstock.engine.scheduling import granting
from penstock.streams.event import Appended
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Reader, ids, shots, until


class Watch:
    """Counts pairs of frames that were announced and that were encoded, from all messages."""

    def __init__(self) -> None:
        self.announced = self.encoded = 0

    def __call__(self, mailbox: str, lane: str, message: Any) -> None:
        self.announced += isinstance(message, Announce)
        self.encoded += isinstance(message, Spans)


def test_a_camera_has_one_piece_encoded_while_the_model_speaks(house: House) -> None:
    """What is not encoded yet may still be replaced by something newer."""

    async def work() -> None:
        request, watch = Request(format="per-frame", policy="latest"), Watch()
        async with house.engine(observer=watch) as engine, await engine.stream(request) as stream:
            reply = await stream.ask(WORDS, SamplingParams(max_tokens=2000, ignore_eos=True))
            reading = asyncio.create_task(ids(reply))
            film = shots(1, 8)
            for pair in range(4):
                for frame in film[2 * pair : 2 * pair + 2]:
                    await stream.append(frame)
                await until(lambda pair=pair: (watch.announced, watch.encoded) == (pair + 1, 1))
            await until(lambda: engine.statistics()["segments_waiting"] == 3)
            assert watch.encoded == 1 and not reading.done()
            await stream.interrupt()
            await reading
            await until(lambda: watch.encoded == 4)

    house.run(work())


def test_a_second_that_is_larger_than_what_is_encoded_ahead_goes_in(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        monkeypatch.setattr(granting, "_AHEAD_ROWS", 1)
        request, watch = Request(format="units", unit_tokens=2), Watch()
        async with house.engine(observer=watch) as engine, await engine.stream(request) as stream:
            reader = Reader(stream)
            reply = await stream.ask(WORDS, SamplingParams(max_tokens=6, ignore_eos=True))
            reading = asyncio.create_task(ids(reply))
            film = shots(1, 4)
            for pair in range(2):  # a second each
                for frame in film[2 * pair : 2 * pair + 2]:
                    await stream.append(frame)
                await until(lambda pair=pair: watch.encoded == pair + 1)
            await reader.see(Appended, 1)
            await stream.end()
            assert len(await reading) == 6

    house.run(work())
