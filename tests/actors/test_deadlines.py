"""Media that is overdue goes in before a reply of its stream goes on, and a reply is never held up for long. The clock
is the test's: it stands until it is set.
"""

from __future__ import annotations

import asyncio

import pytest
from penstock.actors.engine import Engine
from penstock.actors.stream import Stream
from penstock.errors import OverloadError
from penstock.streams.event import Appended, Token
from penstock.streams.item import Image, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.test_policy_latest import slowed
from tests.actors.watch import Holding, Reader, quiet, until
from tests.reference.media import frames, picture

LONG = SamplingParams(max_tokens=2_000, ignore_eos=True, temperature=0)
INTERVAL_US = 100_000  # of the first pair of frames: what it lasts
WATCHING = Request(format="live", video_fps=10.0)
CAMERA = Request(policy="latest", video_fps=2.0)


class Clock:
    """The time of the schedule actor. Where it stands when a piece comes, that piece is due."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now_us = 0
        patch.setattr("penstock.actors.clock.now_us", lambda: self.now_us)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def show(stream: Stream) -> None:
    """A pair of frames, which is due now."""
    for number, pixels in enumerate(frames(1, 2)):
        await stream.append(VideoFrame(pixels, number * INTERVAL_US))


async def still(engine: Engine, reader: Reader) -> int:
    """How many tokens there are when no more come."""
    count = -1
    while count != len(reader.of(Token)):
        count = len(reader.of(Token))
        await asyncio.sleep(0.02)
        await quiet(engine)
    return count


def test_a_reply_whose_media_is_overdue_says_less_and_speaks_of_that_media_next(house: House, clock: Clock) -> None:
    async def work() -> None:
        slow, towers = slowed(house.loaded)
        async with house.engine(slow) as engine, await engine.stream(WATCHING) as stream:
            reader = Reader(stream)
            await stream.ask("What?", LONG)
            await reader.see(Token, 3)
            await show(stream)
            await until(towers.begun.is_set)
            before = len(reader.of(Token))
            await reader.see(Token, before + 20)  # there is time: the reply goes on while the tower is at work
            clock.now_us += INTERVAL_US
            said = await still(engine, reader)
            for _ in range(2):  # it never starves: a token for each interval
                clock.now_us += INTERVAL_US
                await reader.see(Token, said + 1)
                assert await still(engine, reader) == said + 1
                said += 1
            towers.go.set()
            await reader.see(Token, said + 20)
            piece = reader.of(Appended)[0]
            assert (piece.lag_us, piece.overdue_us) == (3 * INTERVAL_US, 2 * INTERVAL_US)
            assert [token.seen is not None for token in reader.of(Token)[: said + 2]] == [False] * said + [True] * 2
            await stream.interrupt()

    house.run(work())


def test_others_go_on_beside_a_reply_that_waits(house: House, clock: Clock) -> None:
    async def work() -> None:
        slow, towers = slowed(house.loaded)
        async with (
            house.engine(slow) as engine,
            await engine.stream(WATCHING) as behind,
            await engine.stream(Request(format="turns")) as other,
        ):
            readers = Reader(behind), Reader(other)
            await behind.ask("What?", LONG)
            await readers[0].see(Token, 3)
            await show(behind)
            await until(towers.begun.is_set)
            clock.now_us += INTERVAL_US
            said = await still(engine, readers[0])
            assert behind.reply is not None, "it goes on later"
            await other.ask("What?", SamplingParams(max_tokens=30, ignore_eos=True))
            await readers[1].see(Token, 30)
            assert len(readers[0].of(Token)) == said
            towers.go.set()
            await readers[0].see(Appended)
            await behind.interrupt()

    house.run(work())


def test_time_in_a_decoder_counts(house: House, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        holding = Holding(monkeypatch)
        async with house.engine() as engine, await engine.stream() as stream:
            reader = Reader(stream)
            await stream.append(Image(b"1"))
            await until(holding.begun.is_set)
            clock.now_us += 800_000
            holding.go.set()
            (piece,) = await reader.see(Appended)
            assert (piece.lag_us, piece.overdue_us) == (800_000, 300_000)

    house.run(work())


def test_a_stream_that_the_machine_cannot_serve_is_refused_alone(house: House) -> None:
    async def work(admit: str) -> None:
        async with house.engine(admit=admit) as engine, await engine.stream(CAMERA) as first:
            reader = Reader(first)
            for number in range(4):
                await first.append(Image(picture(number), number * INTERVAL_US))
            await reader.see(Appended, 4)
            admission = engine._wiring.schedule._admission
            for _ in range(64):  # as on a machine on which a row takes a second
                admission.piece("video", 16)
                admission.encoded(16, 16_000.0)
                admission.stepped(16, 16_000.0)
            if admit == "measured":
                with pytest.raises(OverloadError, match=r"at most 0% .* got one that needs 3200%"):
                    await engine.stream(CAMERA)
            else:
                await (await engine.stream(CAMERA)).close()
            await (await engine.stream()).close()
            assert len(await (await first.ask("What?", SamplingParams(max_tokens=3))).text()) > 0
            figures = engine.statistics()
            assert figures["live_load"] > 1 and figures["timeliness_by_stream"][first.id]["pieces"] == 4
            reader.task.cancel()

    for admit in ("measured", "anyway"):
        house.run(work(admit))
