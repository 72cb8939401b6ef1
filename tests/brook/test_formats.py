"""Formats in which a reply rests: Brook tells a film in them, and the same at any pace."""

from __future__ import annotations

import asyncio

import pytest
from penstock import Engine, Request, SamplingParams, VideoFrame
from penstock.demos.brook.narration import change_told
from penstock.demos.film import STORY, draw


@pytest.mark.parametrize("format", ["per-frame", "units"])
def test_what_is_told_hangs_on_the_film_alone(format: str) -> None:
    async def narration(engine: Engine, pause: float) -> str:
        async with await engine.stream(Request(format=format)) as stream:
            reply = await stream.watch("Tell me what happens.", SamplingParams(max_tokens=400))
            for frame in range(24):
                await stream.append(VideoFrame(draw(frame / 2), pts_us=frame * 500_000))
                await asyncio.sleep(pause)
            await stream.end()
            return await reply.text()

    async def work() -> list[str]:
        async with await Engine.load() as engine:
            return [await narration(engine, pause) for pause in (0, 0.04)]

    at_once, slowly = asyncio.run(work())
    assert at_once == slowly
    told = [f"{sentence.strip()}." for sentence in at_once.split(".") if sentence.strip()]
    assert told[0].startswith("I see") and told[1:] == [change_told(change) for change in STORY.changes]
