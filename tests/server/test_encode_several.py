"""Several encoders of one engine: all are asked, and where one is killed under a stream nothing waits for it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from encoder_process import EncoderProcess, towers_of
from penstock.actors import lines
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.remote import EncodePieces, Hello, MadeSpans
from penstock.errors import EncoderAwayError, ModelError
from penstock.streams.item import AudioChunk, Image
from test_encode_service import prompt, remote, setup, told

from tests.fixtures.recipe import model_path
from tests.reference.media import picture, sound

ASKED = EncodePieces([])


def answers(process: EncoderProcess) -> float:
    return process.service.registry.get_sample_value("penstock_encode_answers_total")


async def more(stream: Any) -> None:
    for seed in (9, 10):
        await stream.append(Image(picture(seed, 70, 90)))
        await stream.append(AudioChunk(0.01 * sound(seed, 0.5), 16_000, 800_000 + 50_000 * seed))


def test_one_that_is_killed_under_a_stream_is_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "penstock")  # a command that was run in this process may have asked for less
    first, second = EncoderProcess(), EncoderProcess()

    async def work() -> None:
        for process in (first, second):
            await process.start(towers_of("omni"))
        async with await Engine.load(model_path("omni"), config=EngineConfig(kv_tokens=4096)) as whole:
            wanted = await told(whole, more)
        async with await Engine.load(model_path("omni"), config=setup(f"{first.url}, {second.url}")) as engine:
            assert engine.statistics()["encoder"]["here"] == 2
            asked: Any = remote(engine).line

            async def killed(stream: Any) -> None:
                assert answers(first) and answers(second)
                asked._waited = dict.fromkeys(asked._lines, 0.0)  # so that the first is next
                await first.end()
                await more(stream)

            assert await told(engine, killed) == wanted
            assert {name: engine.statistics()["encoder"][name] for name in ("here", "lost")} == {"here": 1, "lost": 1}
            assert "others are asked" in caplog.text and "media waits" not in caplog.text
            await second.end()
            await first.start(towers_of("omni"))
            assert await engine.generate(prompt())

    async def ended() -> None:
        try:
            await work()
        finally:
            for process in (first, second):
                await process.end()

    asyncio.run(ended())


def test_where_none_is_there_at_the_start_all_are_named() -> None:
    with pytest.raises(ModelError, match=r"encoder ws://127.0.0.1:1: cannot .*; encoder ws://127.0.0.1:2: cannot"):
        config = setup("ws://127.0.0.1:1,ws://127.0.0.1:2", encoder_seconds=0.1)
        asyncio.run(Engine.load(model_path("omni"), config=config))


class Place:
    """An encoder that takes so many seconds for an answer, or is away."""

    hello = Hello("", "", "", "")

    def __init__(self, clock: list[float], seconds: float, here: bool = True) -> None:
        self.url, self.lost, self.here = f"ws://{seconds}", 0, here
        self.away, self.asked = not here, 0
        self._clock, self._seconds = clock, seconds

    def ask(self, question: Any) -> Any:
        self.asked += 1
        self._clock[0] += self._seconds
        self.here = not self.away
        if self.away:
            raise EncoderAwayError("it is away")
        return MadeSpans([], {}, 0.0)

    def check(self, until: float) -> None:
        self.ask(None)

    def close(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(lines, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def asked(several: lines.EncoderLines, times: int, *places: Place) -> list[int]:
    before = [place.asked for place in places]
    for _ in range(times):
        several.ask(ASKED)
    return [place.asked - count for place, count in zip(places, before, strict=True)]


def test_the_slower_one_is_asked_less(clock: list[float]) -> None:
    slow, fast = Place(clock, 3.0), Place(clock, 1.0)
    assert asked(lines.EncoderLines([slow, fast]), 40, slow, fast) == [10, 30]


def test_one_that_is_away_is_tried_now_and_then_and_has_nothing_to_make_up_for(clock: list[float]) -> None:
    one, other = Place(clock, 0.5), Place(clock, 0.0, here=False)
    several = lines.EncoderLines([one, other])
    assert asked(several, 40, one, other) == [40, 10]
    other.away, other._seconds = False, 0.5
    assert asked(several, 40, one, other) == pytest.approx([20, 20], abs=4)
    one.away = other.away = True
    with pytest.raises(EncoderAwayError, match="it is away; it is away"):
        several.ask(ASKED)
    one.away = other.away = False
    several.ask(ASKED)  # at once, though neither's time to be tried has come
