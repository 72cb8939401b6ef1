"""A camera that is faster than we are: the oldest go and the client is told; a file waits and loses nothing."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import numpy as np
import pytest
from penstock.actors import on_way
from penstock.codecs import decoders
from penstock.engine.command import Accept, TextInput
from penstock.engine.family import Loaded
from penstock.streams.event import Appended, Dropped
from penstock.streams.item import AudioChunk, Image, Item, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import FRAME_US, Reader, ids, until
from tests.reference.media import frames, picture, sound

COUNT = 30
SHORT = SamplingParams(max_tokens=4)


class SlowTowers:
    """The towers of a model, which begin when they may."""

    def __init__(self, towers: Any) -> None:
        self._towers = towers
        self.go = threading.Event()
        self.begun = threading.Event()
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._towers, name)

    def encode(self, batch: list[Any]) -> Any:
        self.begun.set()
        assert self.go.wait(20)
        self.batches.append(len(batch))
        return self._towers.encode(batch)


def slowed(loaded: Loaded) -> tuple[Loaded, SlowTowers]:
    towers = SlowTowers(loaded.towers)
    return loaded._replace(towers=towers), towers


@pytest.fixture
def slow_decode(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """(a frame is being decoded, it may go on)."""
    begun, go = threading.Event(), threading.Event()

    def decode(data: bytes, limits: Any) -> np.ndarray:
        begun.set()
        assert go.wait(20)
        return picture(data[0], 56, 84)

    monkeypatch.setattr(decoders, "decode_picture", decode)
    return begun, go


def test_camera_faster_than_decode(house: House, slow_decode: tuple[threading.Event, threading.Event]) -> None:
    begun, go = slow_decode

    async def work() -> None:
        request = Request(policy="latest", format="live")
        async with house.engine() as engine, await engine.stream(request) as stream:
            reader = Reader(stream)
            await stream.append(VideoFrame(bytes([0]), 0))
            await until(begun.is_set)
            for number in range(1, COUNT):
                await stream.append(VideoFrame(bytes([number]), number * FRAME_US))
            # One is being decoded, eight wait.
            await until(lambda: sum(event.count for event in reader.of(Dropped)) == COUNT - 9)
            go.set()
            await (await stream.ask("What?", SHORT)).text()
            drops = reader.of(Dropped)
            assert {(event.modality, event.reason) for event in drops} == {("video", "latest")}
            assert [drops[0].start_us, drops[-1].stop_us] == [FRAME_US, (COUNT - 9) * FRAME_US]
            seen = reader.of(Appended)
            assert seen[-1].stop_us is not None and seen[-1].stop_us >= (COUNT - 1) * FRAME_US
            assert stream.credit_bytes == 32 << 20

    house.run(work())


def test_microphone_faster_than_decode(house: House, slow_decode: tuple[threading.Event, threading.Event]) -> None:
    begun, go = slow_decode

    async def work() -> None:
        second = bytes(2 * 16_000)
        async with house.engine() as engine, await engine.stream(Request(policy="latest")) as stream:
            reader = Reader(stream)
            await stream.append(Image(b"1"))
            await until(begun.is_set)
            for number in range(60):
                await stream.append(AudioChunk(second, 16_000, number * 1_000_000))
            kept = (1 << 20) // len(second)
            await until(lambda: sum(event.count for event in reader.of(Dropped)) == 60 - kept)
            assert {(event.modality, event.reason) for event in reader.of(Dropped)} == {("audio", "latest")}
            assert reader.of(Dropped)[0].start_us == 0
            go.set()
            await (await stream.ask("What?", SHORT)).text()
            heard = [event for event in reader.of(Appended) if event.modality == "audio"]
            assert heard[0].start_us is not None and heard[0].start_us >= (60 - kept) * 1_000_000
            assert heard[-1].stop_us == 60_000_000

    house.run(work())


@pytest.mark.parametrize("policy", ["latest", "block"])
def test_camera_faster_than_encode(house: House, policy: str) -> None:
    async def work() -> None:
        slow, towers = slowed(house.loaded)
        async with house.engine(slow) as engine, await engine.stream(Request(policy=policy)) as stream:
            reader = Reader(stream)
            await stream.append(Image(picture(0), 0))
            await until(towers.begun.is_set)
            seqs = [1] + [await stream.append(Image(picture(number), number)) for number in range(1, COUNT)]
            await until(lambda: engine.statistics()["mailboxes"]["encode"]["data"] >= COUNT - 1)
            towers.go.set()
            reply = await stream.ask("What?", SHORT)
            assert len(await ids(reply)) == 4
            appended = [event.seq for event in reader.of(Appended)]
            lost = sum(event.count for event in reader.of(Dropped))
            assert appended == sorted(appended) and appended[-1] == seqs[-1]
            assert len(appended) + lost == COUNT
            assert (lost > 0) == (policy == "latest")

    house.run(work())


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_what_is_dropped_for_newer_media_takes_its_time(house: House, kind: str) -> None:
    """What went in, and the words behind it, stand where they do if nothing is dropped."""
    film = frames(1, 2 * COUNT)

    def piece(number: int) -> list[Item]:
        if kind == "audio":
            return [AudioChunk(sound(number, 2.0)[None], 16_000, number * 2_000_000)]
        return [VideoFrame(film[place], place * FRAME_US) for place in (2 * number, 2 * number + 1)]

    async def seen(policy: str) -> tuple[dict[int | None, int], list[list[int]], int]:
        slow, towers = slowed(house.loaded)
        request = Request(policy=policy, format="turns", window=None)
        async with house.engine(slow) as engine:
            stream = await engine.stream(request)
            reader = Reader(stream)
            for number in range(COUNT):
                for item in piece(number):
                    await stream.append(item)
                    await until(lambda: engine.statistics()["mailboxes"]["decode"]["data"] == 0)
            await until(lambda: engine.statistics()["mailboxes"]["encode"]["data"] >= COUNT - 2)
            towers.go.set()
            await (await stream.ask("What?", SHORT)).text()
            last = (await stream.transcript())[-1].positions
            await stream.close()
        await reader.task
        lost = sum(event.count for event in reader.of(Dropped))
        return {event.start_us: event.position for event in reader.of(Appended)}, last, lost

    async def work() -> None:
        (some, after, lost), (every, after_every, nothing) = await seen("latest"), await seen("block")
        assert len(some) + lost == len(every) and lost > 0 and nothing == 0
        assert some == {start: every[start] for start in some}
        assert after == after_every

    house.run(work())


def test_parts_of_a_file_are_never_dropped(
    house: House, monkeypatch: pytest.MonkeyPatch, slow_decode: tuple[threading.Event, threading.Event]
) -> None:
    """Pictures and files wait for credit under either policy."""
    begun, go = slow_decode

    async def work() -> None:
        monkeypatch.setattr(on_way, "CREDIT_BYTES", 100)
        async with house.engine() as engine, await engine.stream(Request(policy="latest")) as stream:
            reader = Reader(stream)
            await stream.append(Image(bytes(100)))
            await until(begun.is_set)
            late = asyncio.create_task(stream.append(Image(bytes(100))))
            assert await stream.append(VideoFrame(np.zeros((56, 84, 3), np.uint8))) == 2
            assert not late.done()
            go.set()
            assert await late == 3
            await (await stream.ask("What?", SHORT)).text()
            assert not reader.of(Dropped)

    house.run(work())


def test_segments_of_one_stream_are_encoded_in_order_whatever_their_times(house: House) -> None:
    """The second picture claims to be from before the first, and each fills the encoder's budget."""

    async def work() -> None:
        slow, towers = slowed(house.loaded)
        async with house.engine(slow, encoder_tokens=1) as engine, await engine.stream() as stream:
            reader = Reader(stream)
            for number in range(6):
                await stream.append(Image(picture(number), -number * 10_000_000))
            await until(towers.begun.is_set)
            towers.go.set()
            await (await stream.ask("What?", SHORT)).text()
            assert [event.seq for event in reader.of(Appended)] == [1, 2, 3, 4, 5, 6]
            assert towers.batches == [1] * 6

    house.run(work())


@pytest.mark.parametrize(
    "times_us",
    [
        pytest.param([0, 500_000, 1_700_000_000_000_000, 1_700_000_000_500_000], id="from an epoch on"),
        pytest.param([1_000_000_000_000, 0, 500_000], id="back to 0"),
        pytest.param([3_600_000_000, 3_600_500_000], id="from anywhere"),
    ],
)
def test_a_clock_that_leaps_neither_pushes_a_stream_ahead_nor_holds_it_back(house: House, times_us: list[int]) -> None:
    """What comes when it should is due then, whatever came before; so it is behind a long rest."""

    async def work() -> None:
        async with house.engine() as engine:
            due, now_us = engine._wiring.schedule._granting.due, 10_000_000_000
            for stop_us in times_us:
                assert abs(due(1, stop_us, now_us) - now_us) <= FRAME_US
                now_us += FRAME_US
            now_us += 600_000_000
            assert due(1, times_us[-1] + FRAME_US, now_us) == now_us
            assert due(1, times_us[-1] + 2 * FRAME_US, now_us) == now_us + FRAME_US

    house.run(work())


def test_nothing_is_encoded_ahead_of_many_rows_that_are_still_to_be_fed(house: House) -> None:
    """Spans of known pictures are laid at once: without this a camera on a still scene runs away from slow steps."""

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="turns")) as stream:
            schedule = engine._wiring.schedule
            state, numbers = schedule._scheduler.streams[stream.id], itertools.count(1)
            while state.rows <= 4096:  # of few characters each: long words wait for their ids
                assert schedule._granting.wants_spans(stream.id)
                schedule._scheduler.apply(Accept(stream.id, TextInput(next(numbers), "zq" * 100)))
            assert not schedule._granting.wants_spans(stream.id)

    house.run(work())
