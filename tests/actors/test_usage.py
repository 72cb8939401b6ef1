"""What a stream has cost: the sums over all streams are what the engine did, counted from its messages."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from penstock.actors import messages as m
from penstock.actors.stream import Stream
from penstock.engine.plan import Plan, Result
from penstock.streams.event import Appended, Closed, Dropped, Token, Usage
from penstock.streams.item import AudioChunk, Image, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Reader, ids, most, quiet, shots, until
from tests.reference.media import picture, sound


class Watch:
    """Counts from outside what the engine does."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.by_stream: Counter[int] = Counter()
        self.step_seconds = self.encode_seconds = 0.0
        self._plan: Plan | None = None

    def see(self, mailbox: str, lane: str, message: Any) -> None:
        match message:
            case Plan():
                self._plan = message
                for feed in message.feeds:
                    for run in feed.rows:
                        self.rows["text" if run.seen is None else run.seen.modality] += len(run)
                        self.by_stream[feed.stream] += len(run)
            case Result() if self._plan is not None and self._plan.feeds:
                self.step_seconds += message.ms / 1000
            case m.Spent(shares):
                self.encode_seconds += sum(seconds for _, seconds in shares)


async def cost(stream: Stream, reader: Reader) -> Usage:
    """Close a stream; what it says that it has cost."""
    await stream.close()
    await reader.task
    last = reader.events[-1]
    assert isinstance(last, Closed) and last.usage is not None
    return last.usage


def total(usages: list[Usage]) -> Usage:
    rows: Counter[str] = Counter()
    for usage in usages:
        rows.update(usage.rows)
    names = ("refed", "cached", "tokens", "encode_seconds", "step_seconds")
    sums: dict[str, Any] = {name: sum(getattr(usage, name) for usage in usages) for name in names}
    return Usage(rows=dict(rows), **sums)


def test_sums_over_streams_are_what_the_engine_did(house: House) -> None:
    watch = Watch()

    async def work() -> None:
        async with house.engine(observer=watch.see) as engine:
            streams = [await engine.stream(Request(format=format)) for format in ("live", "turns", "turns")]
            readers = [Reader(stream) for stream in streams]
            for frame in shots(1, 6):
                await streams[0].append(frame)
            await streams[0].append(AudioChunk(sound(3, 2.0)[None], 16_000))
            await streams[1].append(Image(picture(1)))
            await streams[2].append(Image(picture(1)))  # the same: no tower works for it
            await asyncio.gather(*[ids(await stream.ask(WORDS, most(6))) for stream in streams])
            usages = [await cost(*pair) for pair in zip(streams, readers, strict=True)]
            known = Usage(**engine.statistics()["usage"])
        for stream, reader, usage in zip(streams, readers, usages, strict=True):
            told = Counter[str]()
            for event in reader.of(Appended):
                told[event.modality] += event.rows
            assert {name: count for name, count in usage.rows.items() if name != "text"} == told
            assert sum(usage.rows.values()) + usage.refed == watch.by_stream[stream.id]
            assert usage.tokens == len(reader.of(Token)) == 6 and usage.step_seconds > 0
        all = total(usages)
        assert all.rows == watch.rows and all.refed == 0
        assert usages[0].encode_seconds > 0 and sorted(usage.encode_seconds > 0 for usage in usages) == [
            False,
            True,
            True,
        ]
        # What the engine did for itself, to warm up, would be more; here it has not.
        assert (known.rows, known.tokens) == (all.rows, all.tokens)
        assert known.step_seconds == pytest.approx(all.step_seconds) == pytest.approx(watch.step_seconds)
        assert known.encode_seconds == pytest.approx(all.encode_seconds) == pytest.approx(watch.encode_seconds)

    house.run(work())


def test_what_was_dropped_is_told_by_reason(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(drop_still=60.0)) as stream:
            reader = Reader(stream)
            (shot,) = shots(1, 1)
            for number in range(8):
                await stream.append(VideoFrame(shot.data, number * 500_000))
            await stream.append(AudioChunk(sound(3, 0.01)[None], 16_000))
            await ids(await stream.ask(WORDS, most(1)))
            usage = await cost(stream, reader)
            dropped: dict[str, Counter[str]] = {}
            for event in reader.of(Dropped):
                dropped.setdefault(event.modality, Counter())[event.reason] += event.count
            assert usage.dropped == dropped and {"video", "audio"} == dropped.keys() and dropped["video"]["still"] > 2

    house.run(work())


def test_an_account_begins_empty_in_a_fork_and_in_a_restored_stream(house: House, tmp_path: Path) -> None:
    watch = Watch()

    async def work() -> None:
        async with house.engine(observer=watch.see) as engine, await engine.stream() as stream:
            await stream.append(Image(picture(1)))
            await ids(await stream.ask(WORDS, most(8)))
            await quiet(engine)
            await stream.snapshot(tmp_path / "here")
            twins = [await stream.fork(), await engine.restore(tmp_path / "here")]
            readers = [Reader(twin) for twin in twins]
            for twin in twins:
                await ids(await twin.ask("And now?", most(3)))
            for twin, reader in zip(twins, readers, strict=True):
                usage = await cost(twin, reader)
                assert set(usage.rows) == {"text"} and usage.rows["text"] == watch.by_stream[twin.id]
                assert (usage.tokens, usage.encode_seconds, usage.cached, usage.refed) == (3, 0.0, 0, 0)

    house.run(work())


def test_rows_that_make_room_and_come_back_are_fed_again(house: House) -> None:
    """Both streams have a half of the cache and more."""
    watch = Watch()

    async def work() -> None:
        async with house.engine(
            kv_tokens=512, page_tokens=16, host_pages=0, prefix_cache=False, observer=watch.see
        ) as engine:
            streams = [await engine.stream(Request(window=None)) for _ in range(2)]
            readers = [Reader(stream) for stream in streams]
            for number, stream in enumerate(streams):
                await ids(await stream.ask(f"{number} " + WORDS * 40, most(4)))
            for stream in streams:
                await ids(await stream.ask("And?", most(4)))
            usages = [await cost(*pair) for pair in zip(streams, readers, strict=True)]
        for stream, usage in zip(streams, usages, strict=True):
            fed = watch.by_stream[stream.id]
            assert sum(usage.rows.values()) + usage.refed == fed
        assert sum(usage.refed for usage in usages) > 100
        # The same once more, without a lack of room: as much goes in.
        watch.by_stream.clear()
        async with house.engine(page_tokens=16, prefix_cache=False, observer=watch.see) as engine:
            stream = await engine.stream(Request(window=None))
            reader = Reader(stream)
            await ids(await stream.ask("0 " + WORDS * 40, most(4)))
            await ids(await stream.ask("And?", most(4)))
            calm = await cost(stream, reader)
        assert calm.refed == 0 and calm.rows == usages[0].rows

    house.run(work())


def test_media_that_an_interrupt_moves_up_is_fed_again_and_all_else_once(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
            reader = Reader(stream)
            await stream.ask(WORDS, SamplingParams(max_tokens=400, ignore_eos=True))
            await until(lambda: len(reader.of(Token)) > 4)
            for frame in shots(1, 2):
                await stream.append(frame)
            (piece,) = await reader.see(Appended)
            told = len(reader.of(Token))
            await until(lambda: len(reader.of(Token)) > told + 2)
            await stream.interrupt(2)
            await ids(await stream.ask("And?", most(2)))
            usage = await cost(stream, reader)
            pieces = reader.of(Appended)
            assert len(pieces) == 2 and pieces[1].row < piece.row
            assert usage.rows["video"] == piece.rows <= usage.refed <= piece.rows + 16

    house.run(work())


def test_rows_that_were_found_are_not_counted_as_computed(house: House) -> None:
    watch = Watch()

    async def work() -> None:
        async with house.engine(page_tokens=16, observer=watch.see) as engine:
            usages = []
            for _ in range(2):
                stream = await engine.stream()
                reader = Reader(stream)
                await ids(await stream.ask(WORDS * 20, most(4)))
                usages.append(await cost(stream, reader))
                assert sum(usages[-1].rows.values()) == watch.by_stream[stream.id]
            first, second = usages
            assert first.cached == 0 < second.cached == first.rows["text"] - second.rows["text"]

    house.run(work())
