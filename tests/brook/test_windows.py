"""Brook goes on beyond what a stream may have, and still says what is there now."""

from __future__ import annotations

import asyncio

from penstock import Appended, Engine, EngineConfig, Evicted, ReplyDone, Request, SamplingParams, VideoFrame, Window
from penstock.demos.brook.late import lived
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
            if isinstance(event, ReplyDone) and event.reply == len(QUESTIONS):
                return [words.strip() for words in given], gone


def test_it_says_what_is_there_after_many_windows() -> None:
    async def work() -> None:
        async with await Engine.load(config=EngineConfig(kv_tokens=4096)) as engine:
            fresh, none = await answers(engine, None, 0)
            late, gone = await answers(engine, Window(rows=320), 240)
            copy = await (await lived(engine, 0.5, 320)).stream(Request())  # as an examination has it
            for number in range(8):
                await copy.append(VideoFrame(THEN, pts_us=number * FRAME_US))
            words = await (await copy.ask(QUESTIONS[0], GREEDY)).text()
        assert none == 0 and gone > 10
        assert late == fresh and words.strip() == fresh[0]

    asyncio.run(work())


def test_a_camera_has_the_window_that_brook_was_trained_on() -> None:
    """What it does not know how to look at has left."""

    async def work() -> None:
        async with await Engine.load(config=EngineConfig(kv_tokens=4096)) as engine:
            async with await engine.stream(Request(format="turns", policy="latest")) as camera:
                for number in range(0, 60, 2):
                    for frame in (number, number + 1):
                        await camera.append(VideoFrame(FIRST, pts_us=frame * FRAME_US))
                    async for event in camera:
                        if isinstance(event, Appended):
                            break
                rows = engine.statistics()["window_by_stream"][camera.id]["rows"]
        assert 200 < rows <= 320

    asyncio.run(work())
