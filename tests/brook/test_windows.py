"""Brook goes on beyond what a stream may have: it still says what is there now, and what it was told to."""

from __future__ import annotations

import asyncio

from penstock import Engine, EngineConfig, Evicted, Request, SamplingParams, VideoFrame, Window
from penstock.demos.film import draw

FIRST, THEN = draw(1.0), draw(11.0)
QUESTIONS = ("What do you see?", "How many things are there?", "What colour is the star?", "Where is the star?")
GREEDY = SamplingParams(max_tokens=40, temperature=0.0)
FRAME_US = 500_000


async def answers(engine: Engine, window: Window | None, before: int) -> tuple[list[str], int]:
    """What is answered of one scene after `before` frames of another; and how often rows left meanwhile."""
    async with await engine.stream(Request(format="turns", window=window)) as stream:
        for number in range(before + 8):
            await stream.append(VideoFrame(FIRST if number < before else THEN, pts_us=number * FRAME_US))
        given = [await (await stream.ask(question, GREEDY)).text() for question in QUESTIONS]
        await stream.end()
        gone = 0
        while True:
            event = await asyncio.wait_for(anext(stream), 20)
            gone += isinstance(event, Evicted)
            if getattr(event, "reply", 0) == len(QUESTIONS) and type(event).__name__ == "ReplyDone":
                return [words.strip() for words in given], gone


def test_it_says_what_is_there_after_many_windows() -> None:
    async def work() -> None:
        async with await Engine.load(config=EngineConfig(kv_tokens=4096)) as engine:
            fresh, none = await answers(engine, None, 0)
            late, gone = await answers(engine, Window(rows=320), 240)
        assert none == 0 and gone > 10
        assert late == fresh

    asyncio.run(work())
