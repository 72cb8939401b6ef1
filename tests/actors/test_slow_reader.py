"""A client that does not read: its stream is parked, then closed; the others go on, and nothing grows without bound."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from penstock.actors import on_way, outbox
from penstock.actors.outbox import MOST_UNREAD_EVENTS, Outbox
from penstock.errors import StreamClosedError
from penstock.streams.event import Appended, Closed, Credit, Dropped, Error, Event, Held, ReplyDone, Token
from penstock.streams.item import Image
from penstock.streams.requests.request import SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import Reader, ids, until
from tests.reference.media import picture

UNREAD = 16
# A step that runs while a stream is parked, and what its client is still being told, may give this many tokens more.
LATE = 8
LONG = SamplingParams(max_tokens=200)


@pytest.fixture(autouse=True)
def few_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_UNREAD_TOKENS", UNREAD)


def test_reply_that_nobody_reads_is_parked_and_goes_on_when_read(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as lazy, await engine.stream() as busy:
            expected = await ids(await busy.ask("What?", LONG))
            reply = await lazy.ask("What?", LONG)
            await until(lambda: reply.unread > UNREAD)
            for _ in range(3):
                assert len(await ids(await busy.ask("And?", SamplingParams(max_tokens=60)))) == 60
                assert reply.unread <= UNREAD + LATE
            assert await ids(reply) == expected
            assert reply.reason == "length"

    house.run(work())


def test_events_that_nobody_reads_park_the_stream_too(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as lazy, await engine.stream() as busy:
            await lazy.ask("What?", LONG)
            events = [await anext(lazy) for _ in range(4)]  # has begun to read events
            for _ in range(3):
                assert len(await ids(await busy.ask("And?", SamplingParams(max_tokens=60)))) == 60
            reader = Reader(lazy)
            await reader.see(ReplyDone)
            told = [event.index for event in (*events, *reader.events) if isinstance(event, Token)]
            assert told == list(range(200))

    house.run(work())


def test_fork_of_a_parked_stream_runs(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as lazy, await engine.stream() as busy:
            reply = await lazy.ask("What?", LONG)
            await until(lambda: reply.unread > UNREAD)
            await ids(await busy.ask("And?", SamplingParams(max_tokens=60)))  # time in which it would have gone on
            async with await lazy.fork() as twin:
                assert twin.reply is not None
                rest = await ids(twin.reply)
            whole = await ids(reply)
            assert whole[-len(rest) :] == rest and reply.reason == "length"

    house.run(work())


def test_parked_stream_takes_no_media_ahead(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(on_way, "CREDIT_BYTES", 3 * picture(0).nbytes)
        async with house.engine() as engine, await engine.stream() as lazy, await engine.stream() as busy:
            reply = await lazy.ask("What?", LONG)
            await until(lambda: reply.unread > UNREAD)
            await (await busy.ask("And?", SamplingParams(max_tokens=4))).text()  # the stream is parked by now
            for seed in range(3):
                await lazy.append(Image(picture(seed)))
            late = asyncio.create_task(lazy.append(Image(picture(3))))
            await until(lambda: engine.statistics()["segments_waiting"] == 3)
            await (await busy.ask("And?", SamplingParams(max_tokens=4))).text()
            assert not late.done() and engine.statistics()["segments_waiting"] == 3
            await reply.text()
            await late
            await (await lazy.ask("Well?", SamplingParams(max_tokens=2))).text()
            assert len([row for row in await lazy.transcript() if row.seen]) == 4

    house.run(work())


def test_stream_that_stays_unread_is_closed(house: House) -> None:
    async def work() -> None:
        async with house.engine(parked_seconds=0.02) as engine, await engine.stream() as busy:
            lazy = await engine.stream()
            reply = await lazy.ask("What?", LONG)
            await until(lambda: lazy.closed)
            with pytest.raises(StreamClosedError, match="slow reader"):
                await reply.text()
            with pytest.raises(StreamClosedError):
                await lazy.ask("And?")
            reader = Reader(lazy)
            await reader.task
            last = reader.events[-1]
            assert isinstance(last, Closed) and (last.reason, last.number) == ("slow reader", len(reader.events))
            await lazy.close()
            assert engine.statistics()["streams"] == 1
            assert len(await ids(await busy.ask("And?", SamplingParams(max_tokens=8)))) == 8

    house.run(work())


def test_parked_stream_that_is_interrupted_has_nothing_left_to_read(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as lazy:
            reply = await lazy.ask("What?", LONG)
            await until(lambda: reply.unread > UNREAD)
            await lazy.interrupt()
            await until(lambda: reply.reason is not None)
            assert not engine._timers  # no time runs against it any more
            assert len(await ids(await lazy.ask("And?", SamplingParams(max_tokens=3)))) == 3

    house.run(work())


def outbox_of(events: list[Event], attached: bool) -> Outbox:
    outbox = Outbox()
    outbox.attached = attached
    for event in events:
        outbox.put(event)
    return outbox


def drained(outbox: Outbox) -> list[Event]:
    async def read() -> list[Event]:
        return [await outbox.get() for _ in range(outbox.unread_events)]  # type: ignore[misc]

    return asyncio.run(read())


def appended(seq: int) -> Appended:
    return Appended(seq, "video", seq, seq + 1, seq, 1, seq)


@pytest.mark.parametrize("attached", [False, True])
def test_outbox_is_bounded(attached: bool) -> None:
    outbox = outbox_of([appended(seq) for seq in range(5 * MOST_UNREAD_EVENTS)], attached)
    assert outbox.unread_events == MOST_UNREAD_EVENTS
    events = drained(outbox)
    assert [event.seq for event in events if isinstance(event, Appended)][-1] == 5 * MOST_UNREAD_EVENTS - 1
    assert [event.number for event in events] == list(range(1, MOST_UNREAD_EVENTS + 1))


def test_outbox_keeps_tokens_for_a_reader_and_lets_progress_go() -> None:
    told = [Token(1, index, index, "", None) for index in range(100)]
    many = [appended(seq) for seq in range(MOST_UNREAD_EVENTS)]
    events = drained(outbox_of([*told[:50], *many, *told[50:]], attached=True))
    assert [event.index for event in events if isinstance(event, Token)] == list(range(100))
    unread = outbox_of([*many, *told, *many], attached=False)
    assert unread.unread_events == MOST_UNREAD_EVENTS and unread.unread_tokens == 0


def test_outbox_merges_what_only_the_newest_of_counts() -> None:
    events = drained(outbox_of([Credit(1, 1), Held(1, 0), appended(1), Credit(2, 2), Held(0, 0), Credit(3, 3)], True))
    assert [msgspec.structs.replace(event, number=0) for event in events] == [appended(1), Held(0, 0), Credit(3, 3)]


def test_outbox_adds_up_drops_of_one_kind() -> None:
    drops = [Dropped(seq, "video", 1, 10 * seq, 10 * seq + 5, "latest") for seq in range(1, 4)]
    other = Dropped(4, "audio", 1, None, None, "latest")
    events = drained(outbox_of([*drops, other, Error("input", "no"), drops[0]], True))
    assert events[0] == Dropped(3, "video", 3, 10, 35, "latest", number=1)
    assert [type(event) for event in events] == [Dropped, Dropped, Error, Dropped]
