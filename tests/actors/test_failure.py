"""What goes wrong ends as little as it may: an input, a stream, or, loudly, the engine."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import numpy as np
import pytest
from penstock.codecs import decoders
from penstock.codecs.feeding import Decoded
from penstock.codecs.reading import Reading
from penstock.engine.family import Loaded
from penstock.errors import OverloadError, PenstockError, StreamClosedError
from penstock.streams.event import Appended, Closed, Error, ReplyDone
from penstock.streams.item import AudioBytes, AudioChunk, Image, Item, VideoBytes, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import ImageSegment, VideoSegment

from tests.actors.conftest import House
from tests.actors.watch import Reader, cancelled, ids, shots, until
from tests.reference.media import picture

SHORT = SamplingParams(max_tokens=4)
LONG = SamplingParams(max_tokens=500)


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (Image(b"this is text, not a picture"), "media_format"),
        (Image(np.zeros((4, 4), np.uint8)), None),
        (VideoFrame(b"\xff\xd8\xff\xe0 and then nothing", 0), None),
        (VideoFrame(bytes(10), 0, "rgb24", 56, 84), None),
        (VideoBytes(b"\x1aE\xdf\xa3" + bytes(range(256)) * 8, final=True), None),
        (AudioBytes(b"RIFF\0\0\0\0WAVEnothing", final=True), None),
        (AudioChunk(bytes(100), 2_000_000_000), "media_limit"),
        (AudioChunk(bytes(3), 16_000), None),
    ],
    ids=["text", "no colours", "damaged", "short", "video", "sound", "rate", "odd"],
)
def test_bad_media_is_told_and_the_stream_goes_on(house: House, item: Item, code: str | None) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            reader = Reader(stream)
            await stream.append(Image(picture(1)))
            bad = await stream.append(item)
            await stream.append(Image(picture(2)))
            assert len(await ids(await stream.ask("What?", SHORT))) == 4
            (error,) = reader.of(Error)
            assert error.seq == bad and not error.fatal
            assert error.code == code or (code is None and (error.code == "input" or error.code.startswith("media")))
            assert error.message
            assert [event.seq for event in reader.of(Appended)] == [1, 3]
            assert stream.credit_bytes == 32 << 20

    house.run(work())


def test_what_was_good_before_the_damage_stays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file gives two pairs of frames and then breaks."""
    from penstock.codecs.frame import Pixels
    from penstock.errors import DamagedError

    class Breaks(Reading):
        def __init__(self, *_: Any) -> None:
            super().__init__(1 << 30)
            self.fed = 0

        def begin(self, data: Any, final: bool) -> Decoded:
            self.fed += 1
            if self.fed > 2:
                raise DamagedError("expected a frame, got nothing")
            pair = [Pixels(picture(2 * self.fed + n, 56, 84), (2 * self.fed + n) * 500_000) for n in range(2)]
            return Decoded([*pair], [], False)

        def close(self) -> None:
            pass

    monkeypatch.setattr(decoders, "MediaDecoder", Breaks)

    async def work() -> None:
        async with house.engine(encoder_tokens=1) as engine, await engine.stream() as stream:
            reader = Reader(stream)
            await stream.append(VideoBytes(bytes(200_000)))
            await (await stream.ask("What?", SHORT)).text()
            assert [error.code for error in reader.of(Error)] == ["media_damaged"]
            assert [event.seq for event in reader.of(Appended)] == [1, 1]

    house.run(work())


def test_decoders_are_closed_with_their_stream_or_engine(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []

    class Open(Reading):
        def __init__(self, *_: Any) -> None:
            super().__init__(1 << 30)

        def begin(self, data: Any, final: bool) -> Decoded:
            return Decoded([], [], False)

        def close(self) -> None:
            closed.append(id(self))

    monkeypatch.setattr(decoders, "MediaDecoder", Open)

    async def work() -> None:
        async with house.engine() as engine:
            first, second = await engine.stream(), await engine.stream()
            for stream in (first, second):
                await stream.append(VideoBytes(bytes(10)))
                await stream.append(AudioBytes(bytes(10)))
                await (await stream.ask("What?", SHORT)).text()
            assert not closed
            await first.close()
            await until(lambda: len(closed) == 2)
        assert len(set(closed)) == len(closed) == 4

    house.run(work())


class Picky:
    """The towers of a model, of which one refuses pictures and frames that are black."""

    def __init__(self, towers: Any) -> None:
        self._towers = towers
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._towers, name)

    def encode(self, batch: list[Any]) -> Any:
        self.batches.append(len(batch))
        if any(not segment.pixels.any() for _, segment in batch if isinstance(segment, ImageSegment | VideoSegment)):
            raise RuntimeError("a kernel failed")
        return self._towers.encode(batch)


def test_failing_tower_costs_one_input(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        towers = Picky(house.loaded.towers)
        slow = house.loaded._replace(towers=towers)
        async with house.engine(slow) as engine, await engine.stream() as stream, await engine.stream() as other:
            reader = Reader(stream)
            black = np.zeros((56, 84, 3), np.uint8)
            for pixels in (picture(1), picture(2), black, picture(3)):
                await stream.append(Image(pixels))
            await other.append(Image(picture(4)))
            assert len(await ids(await stream.ask("What?", SHORT))) == 4
            assert len(await ids(await other.ask("What?", SHORT))) == 4
            assert [(error.seq, error.code, error.fatal) for error in reader.of(Error)] == [(3, "media", False)]
            assert "a kernel failed" in reader.of(Error)[0].message
            assert [event.seq for event in reader.of(Appended)] == [1, 2, 4]

    with caplog.at_level(logging.CRITICAL, "penstock.actors"):
        house.run(work())


def test_failing_decoder_costs_one_stream(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(data: Any, limits: Any) -> np.ndarray:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(decoders, "decode_picture", broken)

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as other:
            stream = await engine.stream()
            reader = Reader(stream)
            await stream.append(Image(b"any"))
            with pytest.raises(PenstockError, match="a mistake of ours"):
                await stream.ask("What?", SHORT)
            await reader.task
            assert [type(event) for event in reader.events[-2:]] == [Error, Closed]
            with pytest.raises(StreamClosedError):
                await stream.append(Image(picture(1)))
            assert len(await ids(await other.ask("What?", SHORT))) == 4
            await until(lambda: engine.statistics()["streams_decode"] == engine.statistics()["streams_encode"] == 1)

    with caplog.at_level(logging.CRITICAL, "penstock.actors"):
        house.run(work())


class Failing:
    """A decoder of a model that fails at its `steps`-th step."""

    def __init__(self, text: Any, steps: int) -> None:
        self._text = text
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._text, name)

    def __call__(self, **inputs: Any) -> Any:
        self._steps -= 1
        if self._steps <= 0:
            raise RuntimeError("the device is gone")
        return self._text(**inputs)


def failing(loaded: Loaded, steps: int) -> Loaded:
    return loaded._replace(text=Failing(loaded.text, steps))


def test_failing_step_ends_the_engine_loudly(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with house.engine(failing(house.loaded, 12)) as engine:
            streams = [await engine.stream() for _ in range(3)]
            readers = [Reader(stream) for stream in streams]
            reply = await streams[0].ask("What?", LONG)
            waiting = asyncio.create_task(streams[0].ask("And?", SHORT))
            for call in (reply.text(), waiting):
                with pytest.raises(PenstockError, match="^the engine has failed$") as told:
                    await call
                assert "the device is gone" in str(told.value.__cause__)
            for reader in readers:
                await reader.task
                assert [type(event) for event in reader.events[-2:]] == [Error, Closed]
                assert reader.of(Error)[0].fatal and reader.of(Error)[0].message == "the engine has failed"
            assert readers[0].of(ReplyDone)[0].reason == "error"
            assert isinstance(engine.failed, RuntimeError) and not engine.ready
            assert await engine.until_failed() is engine.failed
            for stream in streams:
                with pytest.raises(StreamClosedError) as told:
                    await stream.append(Image(picture(1)))
                assert told.value.__cause__ is engine.failed
                await stream.close()
            with pytest.raises(StreamClosedError, match="^the engine has failed$") as told:
                await engine.stream()
            assert told.value.__cause__ is engine.failed

    with caplog.at_level(logging.CRITICAL, "penstock.actors"):
        house.run(work())


def test_first_step_that_fails_fails_those_who_open(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with house.engine(failing(house.loaded, 1)) as engine:
            with pytest.raises(PenstockError, match="^the engine has failed$") as told:
                await engine.warm_up()
            assert "the device is gone" in str(told.value.__cause__)
            assert not engine.ready

    with caplog.at_level(logging.CRITICAL, "penstock.actors"):
        house.run(work())


def test_client_that_forgets_its_stream_holds_nothing_after_close(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine:

            async def client() -> None:
                stream = await engine.stream(Request(format="live"))
                for frame in shots(1, 6):
                    await stream.append(frame)
                await anext(aiter(await stream.ask("What?", LONG)))

            await asyncio.gather(client(), client())

    house.run(work())


def test_no_more_streams_than_slots(house: House) -> None:
    async def work() -> None:
        async with house.engine(slots=1) as engine:
            first = await engine.stream()
            with pytest.raises(OverloadError, match="expected at most 1 open streams"):
                await engine.stream()
            with pytest.raises(OverloadError, match="expected at most 1 open streams"):
                await first.fork()
            await first.close()
            async with await engine.stream() as second:
                assert len(await ids(await second.ask("What?", SHORT))) == 4
                await until(lambda: engine.statistics()["streams_decode"] == engine.statistics()["streams_encode"] == 1)

    house.run(work())


def test_engine_closes_while_everything_is_under_way(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(data: Any, limits: Any) -> np.ndarray:
        begun.set()
        assert go.wait(20)
        return picture(1)

    monkeypatch.setattr(decoders, "decode_picture", slow)

    async def work() -> None:
        async with house.engine() as engine:
            streams = [await engine.stream() for _ in range(2)]
            for stream in streams:
                await stream.append(Image(b"slow"))
                await stream.append(Image(picture(2)))
            asked = [asyncio.create_task(stream.ask("What?", SHORT)) for stream in streams]
            reply = await (await engine.stream()).ask("And?", LONG)
            await until(begun.is_set)
            closing = asyncio.create_task(engine.close())
            await until(lambda: all(task.done() for task in asked))
            assert await cancelled(closing)  # goes on all the same
            for task in asked:
                with pytest.raises(StreamClosedError):
                    task.result()
            with pytest.raises(StreamClosedError):
                await reply.text()
            with pytest.raises(StreamClosedError):
                await engine.stream()
            go.set()
            await asyncio.gather(engine.close(), engine.close())
            await streams[0].close()

    house.run(work())


def test_stream_closes_while_its_media_is_in_the_encoder(house: House) -> None:
    async def work() -> None:
        held = Held(house.loaded.towers)
        async with house.engine(house.loaded._replace(towers=held)) as engine, await engine.stream() as other:
            stream = await engine.stream()
            for seed in range(6):
                await stream.append(Image(picture(seed)))
            await until(held.begun.is_set)
            await stream.append(Image(picture(7)))
            await other.append(Image(picture(8)))
            await stream.close()
            held.go.set()
            assert len(await ids(await other.ask("What?", SHORT))) == 4
            await until(lambda: engine.statistics()["streams_decode"] == engine.statistics()["streams_encode"] == 1)
            assert engine.statistics()["segments_waiting"] == 0

    house.run(work())


class Held:
    """The towers of a model, which begin when they may."""

    def __init__(self, towers: Any) -> None:
        self._towers = towers
        self.go = threading.Event()
        self.begun = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._towers, name)

    def encode(self, batch: list[Any]) -> Any:
        self.begun.set()
        assert self.go.wait(20)
        return self._towers.encode(batch)
