"""In `live` Brook answers as at rest while media comes faster than it can be spoken of, or tokens come slowly."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from penstock import Engine, Request, SamplingParams, VideoFrame
from penstock.demos.film import draw

STILL = draw(11.0)
QUESTIONS = ("What do you see?", "How many things are there?", "What colour is the star?", "Where is the star?")
GREEDY = SamplingParams(max_tokens=40, temperature=0.0)
FRAME_US = 500_000


def slowed(engine: Engine, seconds: float) -> None:
    """Each step that draws a token takes so much longer."""
    language = engine._wiring.generate._language
    run = language.run

    def slow(plan: Any) -> Any:
        if any(feed.draw is not None for feed in plan.feeds):
            time.sleep(seconds)
        return run(plan)

    language.run = slow


async def answers(engine: Engine, rate: float, policy: str) -> tuple[list[str], int]:
    """What is answered while `rate` frames a second come of one still scene (0: none comes during the answers), and
    the end of what the last word saw."""
    async with await engine.stream(Request(format="live", policy=policy)) as stream:
        for number in range(4):
            await stream.append(VideoFrame(STILL, pts_us=number * FRAME_US))
        await (await stream.ask(QUESTIONS[0], GREEDY)).text()  # what was decoded meanwhile is in

        async def camera() -> None:
            for number in range(4, 1000):
                await stream.append(VideoFrame(STILL, pts_us=number * FRAME_US))
                await asyncio.sleep(1 / rate)

        playing = asyncio.create_task(camera()) if rate else None
        given, seen_us = [], 0
        for question in QUESTIONS:
            words = ""
            async for token in await stream.ask(question, GREEDY):
                words += token.text
                seen_us = (token.seen and token.seen.stop_us) or seen_us
            given.append(words.strip())
        if playing is not None:
            assert not playing.done(), "expected media to the end of the answers"
            playing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await playing
    return given, seen_us


@pytest.mark.parametrize("policy", ["latest", "block"])
def test_answers_are_right_however_fast_media_comes(policy: str) -> None:
    async def work() -> list[tuple[list[str], int]]:
        async with await Engine.load() as engine:
            told = [await answers(engine, rate, policy) for rate in (0, 2, 10, 50)]
            slowed(engine, 0.05)  # ten times
            return [*told, await answers(engine, 2, policy), await answers(engine, 50, policy)]

    (rest, _), *under_load = asyncio.run(work())
    assert "star" in rest[0] and rest[1:3] == ["two.", "green."]
    for given, _ in under_load:
        assert given == rest
    seen_us = under_load[-1][1]  # slowed: the answers last for many frames on any machine
    assert seen_us > 5 * FRAME_US, "expected answers that see what came during them"
