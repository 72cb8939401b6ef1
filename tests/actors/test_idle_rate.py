"""What asks for a camera's media, and how much of it the machine can take, decides the rate of its video and how large
its frames are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from penstock.actors import decode
from penstock.actors.messages import Take
from penstock.errors import InputError
from penstock.streams.event import Appended, Dropped, Resting
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.test_fork import ending
from tests.actors.test_policy_latest import slowed
from tests.actors.watch import WORDS, Reader, ids, shots, until

PAIRS = 9


def test_a_question_and_a_reply_ask_for_media_until_the_reply_rests(house: House) -> None:
    async def work() -> None:
        asked: list[bool] = []

        def watch(_: str, __: str, message: Any) -> None:
            if isinstance(message, Take):
                asked.append(message.asked)

        film, (slow, towers) = shots(1, 4), slowed(ending(house.loaded))
        request = Request(format="live")
        async with house.engine(slow, observer=watch) as engine, await engine.stream(request) as stream:
            reader = Reader(stream)
            await stream.append(film[0])
            asking = asyncio.create_task(stream.ask(WORDS, SamplingParams(hold=True)))
            await until(towers.begun.is_set)
            await stream.append(film[1])  # the question waits for the frame before it
            towers.go.set()
            reading = asyncio.create_task(ids(await asking))
            await reader.see(Resting)
            await stream.append(film[2])
            await stream.interrupt()
            await reading
            await stream.append(film[3])
        assert asked == [False, True, False, False]

    house.run(work())


@pytest.mark.parametrize("idle", [0.5, None])
def test_a_camera_has_its_lower_rate_before_anything_is_lost(
    house: House, monkeypatch: pytest.MonkeyPatch, idle: float | None
) -> None:
    """Each frame shows another scene: none is left out while its media does not wait."""

    async def work() -> None:
        monkeypatch.setattr(decode, "_WAITS_LONG_US", 20_000)
        slow, towers = slowed(house.loaded)
        request = Request(format="turns", policy="latest", video_fps_idle=idle)
        async with house.engine(slow) as engine, await engine.stream(request) as stream:
            reader, film = Reader(stream), shots(1, 2 * PAIRS)
            for frame in film[:2]:
                await stream.append(frame)
            await until(towers.begun.is_set)
            await asyncio.sleep(0.05)
            for pair in range(1, PAIRS):
                for frame in film[2 * pair : 2 * pair + 2]:
                    await stream.append(frame)
                await until(lambda: engine.statistics()["mailboxes"]["decode"]["data"] == 0)
                await asyncio.sleep(0.01)
            towers.go.set()
            await (await stream.ask(WORDS, SamplingParams(max_tokens=2))).text()
            left_out = {(event.reason, event.start_us) for event in reader.of(Dropped)}
            if idle is None:
                assert {reason for reason, _ in left_out} == {"latest"}
            else:  # a pair of frames in four seconds
                assert {event.start_us for event in reader.of(Appended)} == {0, 4_000_000, 8_000_000}
                assert left_out == {("rate", second * 1_000_000) for second in (1, 2, 3, 5, 6, 7)}

    house.run(work())


def test_a_camera_has_smaller_frames_before_anything_is_lost(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame shows another scene, and a question waits: frames are smaller all the same."""

    async def work() -> None:
        slow, towers = slowed(house.loaded)
        request = Request(format="turns", policy="latest", video_pixels_idle=3136)
        async with house.engine(slow) as engine, await engine.stream(request) as stream:
            reader, film = Reader(stream), shots(1, 6)
            for frame in film[:2]:
                await stream.append(frame)
            await until(towers.begun.is_set)
            asking = asyncio.create_task(stream.ask(WORDS, SamplingParams(max_tokens=2)))
            monkeypatch.setattr(decode, "_WAITS_LONG_US", 0)  # what waits for the encoder now waits too long
            for frame in film[2:]:
                await stream.append(frame)
            await until(lambda: engine.statistics()["mailboxes"]["decode"]["data"] == 0)
            towers.go.set()
            await (await asking).text()
            rows = [event.rows for event in await reader.see(Appended, 3)]
            assert rows == [6, 2, 2] and not reader.of(Dropped)

    house.run(work())


def test_an_idle_rate_above_that_of_the_video_is_refused(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine:
            with pytest.raises(InputError, match="video_fps_idle: expected at most video_fps, 2, got 4"):
                await engine.stream(Request(video_fps_idle=4.0))

    house.run(work())


@pytest.mark.parametrize("request_", [Request(video_fps_idle=0.0), Request(video_fps_idle=1.0, audio_in_video=True)])
def test_an_idle_rate_that_cannot_be_is_refused(request_: Request) -> None:
    with pytest.raises(InputError, match="video_fps_idle: expected"):
        request_.check()
