"""How much a step appends, and how long it waits for a tower, by whether media comes in live."""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.engine.plan import Feed, Plan
from penstock.engine.scheduling.granting import Announced, Granting
from penstock.engine.scheduling.pace import Pace
from penstock.streams.event import Appended, Dropped, Token
from penstock.streams.item import Image
from penstock.streams.requests.request import SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import Reader, ids
from tests.reference.media import picture

LONG = SamplingParams(max_tokens=2_000, ignore_eos=True)  # until it is interrupted
SHORT = SamplingParams(max_tokens=4)
MUCH = "what is there to see in this scene now ? " * 60


def appended(plan: Plan) -> int:
    return sum(len(run) for feed in plan.feeds for run in feed.rows) - sum(feed.draw is not None for feed in plan.feeds)


def decodes(feed: Feed) -> bool:
    """It is one token of a reply that goes on."""
    return feed.draw is not None and sum(len(run) for run in feed.rows) == 1


async def beside(house: House, live: bool) -> list[Plan]:
    """The plans of a long text that is appended while a reply decodes."""
    plans: list[Plan] = []

    def note(mailbox: str, lane: str, message: Any) -> None:
        if isinstance(message, Plan):
            plans.append(message)

    async with house.engine(observer=note, append_rows=32) as engine:
        async with await engine.stream() as speaker, await engine.stream() as asker, await engine.stream() as camera:
            if live:
                await camera.append(Image(picture(1)))
                await Reader(camera).see(Appended)
            reader = Reader(speaker)
            reply = await speaker.ask("What?", LONG)
            await reader.see(Token, 2)
            plans.clear()
            async with asyncio.TaskGroup() as group:
                group.create_task(ids(reply))
                await ids(await asker.ask(MUCH, SHORT))
                await speaker.interrupt()
    return [plan for plan in plans if any(decodes(feed) for feed in plan.feeds)]


def test_steps_are_filled_where_nothing_is_live(house: House) -> None:
    plans = house.run(beside(house, live=False))
    assert max(map(appended, plans)) > 300


def test_steps_stay_short_where_media_is_live(house: House) -> None:
    plans = house.run(beside(house, live=True))
    assert 0 < max(map(appended, plans)) <= 32


def test_a_step_that_draws_waits_for_a_time_and_others_for_the_pass(house: House) -> None:
    plans: list[Plan] = []

    def note(mailbox: str, lane: str, message: Any) -> None:
        if isinstance(message, Plan):
            plans.append(message)

    async def work() -> None:
        async with house.engine(observer=note) as engine, await engine.stream() as stream:
            reader = Reader(stream)
            await stream.append(Image(picture(1)))
            await reader.see(Appended)
            await ids(await stream.ask("What?", SHORT))

    house.run(work())
    drawing = [any(feed.draw for feed in plan.feeds) for plan in plans]
    assert [plan.patience_ms is not None for plan in plans] == drawing
    assert {True, False} == set(drawing)


def test_a_stream_is_live_for_a_while_after_its_last_piece() -> None:
    """With how much time there is for a piece before the next."""
    granting = Granting({}, Pace(1.0, 1, 1))
    granting._is_live = lambda stream: False  # none of these drops its pieces

    def piece(stream: int, seq: int, start_us: int | None, stop_us: int | None, now_us: int) -> None:
        event = Dropped(seq, "video", 1, start_us, stop_us, "latest")
        granting.announce(stream, [Announced((stream, seq, 0), 4, stop_us, event, now_us)], now_us)

    def live(now_us: int) -> dict[int, int]:
        return {stream: flow.interval_us for stream, flow in granting.flows(now_us)}

    assert live(0) == {}
    piece(1, 1, 0, 1_000_000, 0)
    piece(2, 1, None, None, 4_000_000)
    assert live(5_000_000) == {1: 1_000_000, 2: 500_000}
    granting.fork(2, 3)
    assert live(11_000_000) == {2: 500_000, 3: 500_000}
    granting.forget(2)
    assert live(11_000_000) == {3: 500_000}
    assert live(20_000_000) == {}
    piece(3, 2, 7_000_000, 7_000_000, 20_000_000)  # pictures that have times
    piece(3, 3, 7_250_000, 7_250_000, 20_250_000)
    assert live(20_500_000) == {3: 250_000}, "as long as from one to the next"
    piece(3, 4, 12_000_000, 12_000_000, 25_000_000)  # after a gap
    assert live(25_500_000) == {3: 500_000}
    piece(3, 5, 12_250_000, 12_250_000, 25_250_000)
    assert live(25_500_000) == {3: 250_000}
