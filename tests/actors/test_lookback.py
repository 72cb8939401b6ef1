"""A question that looks back sees the last seconds as a video of its own, at the rate at which they came."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.actors.intake import Intake
from penstock.actors.lookback import Clip, Keeping, Lookback
from penstock.actors.stream import Stream
from penstock.codecs.decoders import Decoders
from penstock.codecs.limits import MediaLimits
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.frozen import Frozen
from penstock.engine.loading.open import load
from penstock.errors import InputError
from penstock.streams.event import Appended, Dropped
from penstock.streams.item import AudioChunk, VideoFrame
from penstock.streams.requests.request import Request
from penstock.streams.segment import VideoSegment

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Reader, ids, most, quiet
from tests.fixtures.loaded import plain
from tests.fixtures.recipe import model_path
from tests.reference import pieces as p
from tests.reference.dense import build, greedy
from tests.reference.media import RATE, frames, png, sound

TENTH_US = 100_000
ANSWER = 8
CAMERA = frames(5, 21)  # ten a second; the stream takes two a second


async def watch(stream: Stream, count: int = len(CAMERA), encoded: bool = True) -> None:
    for place, pixels in enumerate(CAMERA[:count]):
        await stream.append(VideoFrame(png(pixels) if encoded else pixels, place * TENTH_US))


def expected(oracle: tuple[Any, Any], *media: p.Piece) -> list[int]:
    """The answer that plain `transformers` gives after these."""
    asked = [p.System(None), p.UserStart(), *media, p.Text(WORDS), p.UserEnd(), p.AssistantStart()]
    return greedy(oracle[0], build(*oracle, asked), ANSWER)[0]


def film(places: list[int], fps: float) -> p.VideoPiece:
    return p.VideoPiece(CAMERA[places], tuple(place / 10 for place in places), fps)


@pytest.mark.parametrize("name", ["omni", "qwen2_5_vl", "qwen3_vl"])
def test_an_aside_that_looks_back_is_answered_as_by_plain_transformers(house: House, name: str) -> None:
    """The stream has seen two frames a second; the clip has all ten, at their own times, and none is dropped."""
    loaded = house.loaded if name == "omni" else load(model_path(name), EngineConfig())

    async def work() -> tuple[list[int], list[int], list[Appended]]:
        request = Request(format="live", lookback=1.5)
        async with house.engine(loaded) as engine, await engine.stream(request) as stream:
            await watch(stream)
            async with await stream.fork() as copy:
                reader = Reader(copy)
                answer = await ids(await copy.ask(WORDS, most(ANSWER), lookback=1.0))
                seen = await reader.see(Appended, 6)
            async with stream.aside(WORDS, most(ANSWER), lookback=1.0) as reply:
                return answer, await ids(reply), seen

    answer, aside, seen = house.run(work())
    clip = film(list(range(11, 21)), 10)
    assert aside == answer == expected(plain(name), film([0, 5, 10, 15, 20], 2), clip)
    assert [(one.start_us, one.stop_us) for one in seen[1:]] == [
        (place * TENTH_US, (place + 1) * TENTH_US) for place in range(11, 21, 2)
    ]


def test_sound_comes_again_as_a_run_of_its_own(house: House, omni: tuple[Any, Any]) -> None:
    samples = sound(3, 1.2)

    async def work() -> list[int]:
        async with house.engine() as engine, await engine.stream(Request(format="live", lookback=5)) as stream:
            for start in range(0, len(samples), RATE // 10):
                await stream.append(AudioChunk(samples[None, start : start + RATE // 10], RATE, start * 1000 // 16))
            async with stream.aside(WORDS, most(ANSWER), lookback=0.5) as reply:
                return await ids(reply)

    again = samples[round(0.7 * RATE) :]
    assert house.run(work()) == expected(omni, p.AudioPiece(samples), p.AudioPiece(again))


def test_in_a_stream_that_speaks_the_clip_ends_the_reply_as_the_question_does(
    house: House, omni: tuple[Any, Any]
) -> None:
    """It does not go into the reply pair by pair: it is one video, after what was said."""

    async def work() -> tuple[list[int], list[int], str | None]:
        async with house.engine() as engine, await engine.stream(Request(format="live", lookback=5)) as stream:
            await watch(stream)
            told = await stream.watch(WORDS, most(500))
            await anext(aiter(told))
            answer = await ids(await stream.ask(WORDS, most(ANSWER), lookback=1.0))
            return [token.id for token in told._tokens], answer, told.reason

    said, answer, reason = house.run(work())
    spoken = [p.Text(WORDS), p.UserEnd(), p.AssistantStart(), p.Tokens(said), p.AssistantEnd(), p.UserStart()]
    assert answer == expected(omni, film([0, 5, 10, 15, 20], 2), *spoken, film(list(range(11, 21)), 10))
    assert reason == "interrupted" and said


def test_of_a_camera_nothing_of_the_clip_is_dropped(house: House) -> None:
    """It has more pieces than a live stream lets wait."""

    async def work() -> None:
        request = Request(format="live", lookback=5, policy="latest")
        async with house.engine() as engine, await engine.stream(request) as stream:
            await watch(stream, encoded=False)
            await quiet(engine)
            async with await stream.fork() as copy:
                reader = Reader(copy)
                await ids(await copy.ask(WORDS, most(ANSWER), lookback=5))
                assert not reader.of(Dropped)
                assert len([one for one in reader.of(Appended) if one.lag_us is None]) == 11

    house.run(work())


def test_a_damaged_frame_is_told_and_the_others_come(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live", lookback=5)) as stream:
            await watch(stream, 4)
            await stream.append(VideoFrame(b"no picture", 4 * TENTH_US))
            async with await stream.fork() as copy:
                reader = Reader(copy)
                reply = await copy.ask(WORDS, most(ANSWER), lookback=0.3)
                assert len(await ids(reply)) == ANSWER
                gone = reader.of(Dropped)
                assert [(one.reason, one.start_us) for one in gone] == [("damaged", 4 * TENTH_US)]

    house.run(work())


def test_the_pieces_of_what_waited_and_of_the_clip_are_counted_on(loaded: Loaded) -> None:
    intake = Intake(loaded.family.spec, Request(), Decoders(MediaLimits(), None))
    items = tuple(VideoFrame(pixels, place * TENTH_US) for place, pixels in enumerate(CAMERA))
    for item in items:
        list(intake.take(1, item))
    pieces = [piece for output in intake.take(2, Clip(items[-6:], 10.0)) for piece in output.segments]
    assert [(piece.seq, piece.index) for piece in pieces] == [(2, index) for index in range(4)]
    assert [piece.clip_fps for piece in pieces if isinstance(piece, VideoSegment)] == [None, 10.0, 10.0, 10.0]


def test_what_is_not_kept_is_refused_with_both_numbers(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine:
            async with await engine.stream(Request(format="turns")) as stream:
                await watch(stream, 2)
                with pytest.raises(InputError, match=r"expected a request with lookback, got one without, and 3 sec"):
                    await stream.ask(WORDS, lookback=3)
            async with await engine.stream(Request(format="turns", lookback=2)) as stream:
                with pytest.raises(InputError, match="expected frames or sound with pts_us before the question"):
                    await stream.ask(WORDS, lookback=1)
                await watch(stream, 3)
                with pytest.raises(InputError, match="at most 2, got 2.5"):
                    await stream.ask(WORDS, lookback=2.5)
                await stream.end()
                assert len(await ids(await stream.ask(WORDS, most(ANSWER), lookback=2))) == ANSWER

    house.run(work())


def test_copies_hold_the_media_once_and_the_end_lets_it_go(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live", lookback=5)) as stream:
            await watch(stream)
            held = sum(len(png(pixels)) for pixels in CAMERA)
            assert engine.statistics()["lookback_bytes"] == held
            async with await stream.fork() as copy:
                assert engine.statistics()["lookback_bytes"] == held
                await stream.close()
                assert engine.statistics()["lookback_bytes"] == held
                task = asyncio.create_task(copy.ask(WORDS, most(200), lookback=2))
                await asyncio.sleep(0)
                task.cancel()
            assert engine.statistics()["lookback_bytes"] == 0

    house.run(work())


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=30),
    st.integers(5, 60),
    st.integers(1, 4),
)
def test_what_is_kept_is_the_newest_within_both_bounds(
    pieces: list[tuple[bool, int, int]], most_bytes: int, seconds: int
) -> None:
    """By definition: of all that came, what is newer than so many seconds, and of that as much as the bytes hold."""
    keeping = Keeping(most_bytes, 1 << 30, lambda fps: fps)
    lookback = keeping.begin(Request(lookback=seconds), None)
    time_us, all_of_it = 0, []
    for is_frame, step, size in pieces:
        time_us += step * TENTH_US
        data = bytes(2 * size)
        item = VideoFrame(data, time_us) if is_frame else AudioChunk(data, 1000, time_us)
        all_of_it.append((item, len(data), time_us + (0 if is_frame else size * 1000)))
        lookback.take(item)
        newest = max(stop_us for *_, stop_us in all_of_it)
        young = [piece for piece in all_of_it if piece[2] > newest - seconds * 1_000_000]
        while sum(size for _, size, _ in young) > most_bytes:
            del young[0]
        kept = [one.item for one in lookback.pieces if one.stop_us > newest - seconds * 1_000_000]
        assert kept == [item for item, *_ in young]
        assert keeping.bytes == sum(one.size for one in lookback.pieces) <= most_bytes


def frame(lookback: Lookback, *times: int) -> list[int | None]:
    for time in times:
        lookback.take(VideoFrame(np.zeros((2, 2, 3), np.uint8), time * TENTH_US))
    return [one.item.pts_us // TENTH_US for one in lookback.pieces if one.item.pts_us is not None]


def test_a_clock_that_is_set_back_begins_again_and_one_that_is_late_does_not() -> None:
    keeping = Keeping(1 << 20, 1 << 20, lambda fps: fps)
    assert frame(keeping.begin(Request(lookback=5), None), 50, 51, 3, 4) == [3, 4]
    late = keeping.begin(Request(lookback=5, lateness_us=TENTH_US), None)
    assert frame(late, 50, 52, 51) == [50, 52, 51]
    assert frame(late, 3, 53) == [50, 52, 51, 53]
    assert [item.pts_us for item in late.clip(1).items] == [place * TENTH_US for place in (50, 51, 52, 53)]
    assert frame(late, 3, 4) == [4]


@pytest.mark.parametrize(("one", "all_together"), [(60, 1000), (1000, 72)])
def test_the_bytes_that_are_too_few_are_said(one: int, all_together: int) -> None:
    """Those of the stream, or of all: another has 12 of them. What a copy shares counts once."""
    keeping = Keeping(one, all_together, lambda fps: fps)
    other, lookback = (keeping.begin(Request(lookback=5), None) for _ in range(2))
    frame(other, 100)
    frame(lookback, *range(10))  # of 12 bytes each
    copy = keeping.begin(Request(lookback=5), lookback)
    assert keeping.bytes == 72
    for kept in (lookback, copy):
        with pytest.raises(InputError, match=r"60 bytes are kept .* at most the 0.5 seconds .* got 0.6"):
            kept.clip(0.6)
        assert [item.pts_us for item in kept.clip(0.5).items] == [place * TENTH_US for place in range(5, 10)]
    for kept in (lookback, copy, other):
        kept.clear()
    assert keeping.bytes == 0


def test_what_was_before_a_snapshot_is_not_kept_and_is_said() -> None:
    request = Request(lookback=5)
    restored = Keeping(1000, 1000, lambda fps: fps).begin(request, Frozen(request, 7, True, False))
    frame(restored, *range(50, 55))
    with pytest.raises(InputError, match=r"60 bytes are kept .* at most the 0.4 seconds .* got 3"):
        restored.clip(3)
    assert len(restored.clip(0.4).items) == 4


@pytest.mark.parametrize(("times", "fps"), [([0, 1, 2, 3, 100, 101], 10.0), ([7], 1.0), ([0, 3, 6], 3.333)])
def test_the_rate_is_that_at_which_they_came(times: list[int], fps: float) -> None:
    lookback = Keeping(1 << 20, 1 << 20, lambda fps: fps).begin(Request(lookback=60), None)
    frame(lookback, *times)
    assert lookback.clip(60).fps == fps


def test_the_rate_is_one_at_which_the_model_has_positions() -> None:
    """Qwen3-Omni: a pair of frames takes a whole number of its positions, of which there are 13 a second."""
    family = load(model_path("qwen3_omni"), EngineConfig()).family
    assert [family.video_rate(fps) for fps in (30.0, 25.0, 13.0, 12.0)] == [26.0, 13.0, 13.0, family.video_rate(12.9)]
    for fps in (0.01, 1.1, 7.0, 23.976, 59.94):
        rate = family.video_rate(fps)
        assert min(fps, 52) / 2 <= rate <= fps
        family.check_rate(rate, False)
