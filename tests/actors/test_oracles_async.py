"""The oracles through the actors: a dense forward of plain `transformers`, its `generate`, and a stream alone."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import torch
from penstock.actors.stream import Stream
from penstock.engine.family import Loaded
from penstock.streams.event import TranscriptRow
from penstock.streams.item import Image, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import FRAME_US, ids, until
from tests.engine.story import Clip, Story
from tests.reference.dense import build, forward
from tests.reference.media import frames, picture

WORDS = "What do you see?"
TOKENS = 40


async def live(stream: Stream, clip: np.ndarray) -> tuple[list[int], list[TranscriptRow]]:
    """Two pairs of frames, a question, and the other pairs from another task while the reply runs."""
    items = [VideoFrame(pixels, place * FRAME_US) for place, pixels in enumerate(clip)]
    for item in items[:4]:
        await stream.append(item)
    reply = await stream.ask(WORDS, SamplingParams(max_tokens=TOKENS))
    read: list[int] = []

    async def film() -> None:
        for place in range(4, len(items), 2):
            await until(lambda place=place: len(read) >= 3 * (place // 2 - 1))
            for item in items[place : place + 2]:
                await stream.append(item)

    camera = asyncio.create_task(film())
    async for token in reply:
        read.append(token.id)  # noqa: PERF401 (the camera reads along)
    await camera
    rows: list[TranscriptRow] = []
    async with asyncio.timeout(20):
        while len([row for row in rows if row.seen]) < len(items) // 2:
            rows = await stream.transcript()
    return read, rows


def check(omni: tuple[Any, Any], loaded: Loaded, clip: np.ndarray, read: list[int], rows: list[TranscriptRow]) -> int:
    """Compare a stream's transcript and tokens with a dense forward; returns how many pairs came inside the reply.

    Of the transcript only the order of inputs and tokens is believed; ids and positions are the reference's own.
    """
    model, processor = omni
    wrappers = {id for ids in loaded.family.block_ids["video"] for id in ids}
    clips = {seq: Clip((clip[seq - 2], clip[seq - 1])) for seq in (2, 4)}
    clips |= {
        seq: Clip((clip[seq - 3], clip[seq - 2])) for seq in range(7, len(clip) + 2, 2)
    }  # input 5 is the question
    story = Story("live", None)
    for seq in (2, 4):
        story.media(clips[seq])
    story.ask(WORDS)
    first = len(build(model, processor, story.told()).ids)
    left, inside = list(read), 0
    for row in rows:
        if row.row < first:
            continue
        if row.seen is not None:
            inside += story.replying
            story.media(clips[row.seen.seq])
        elif story.replying and row.ids[0] not in wrappers:
            assert row.ids == [left[0]]
            story.drawn(silence=False)
            story.token(left.pop(0))
            if not left:
                story.end()
    assert not left
    sequence = build(model, processor, story.told())
    held = [id for row in rows for id in row.ids]
    assert len(sequence.ids) - len(held) in (0, 1)  # a block at the end is still open
    assert sequence.ids[: len(held)].tolist() == held
    positions = torch.tensor([[place for row in rows for place in row.positions[axis]] for axis in range(3)])
    assert torch.equal(sequence.positions[:, : len(held)], positions)
    logits = forward(model, sequence)
    before = torch.tensor([sequence.marks[place][0] - 1 for place in story.tokens()])
    # What goes in where differs from run to run, so a tie within the tolerance may come up: then either token is right.
    drawn = logits[before].gather(1, torch.tensor(read)[:, None])[:, 0]
    behind = logits[before].max(-1).values - drawn
    assert float(behind.max()) < 2e-4
    assert int((behind == 0).sum()) >= len(read) - 2
    return inside


def test_frames_appended_by_another_task_equal_a_dense_forward(house: House, omni: tuple[Any, Any]) -> None:
    clip = frames(11, 12)

    async def work() -> tuple[list[int], list[TranscriptRow]]:
        async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
            return await live(stream, clip)

    assert check(omni, house.loaded, clip, *house.run(work())) >= 2


def test_four_streams_at_once_equal_dense_forwards(house: House, omni: tuple[Any, Any]) -> None:
    clips = [frames(seed, 10) for seed in (11, 12, 13, 14)]

    async def work() -> list[tuple[list[int], list[TranscriptRow]]]:
        async with house.engine() as engine:
            streams = [await engine.stream(Request(format="live")) for _ in clips]
            return await asyncio.gather(*map(live, streams, clips))

    inside = [check(omni, house.loaded, clip, *one) for clip, one in zip(clips, house.run(work()), strict=True)]
    assert sum(inside) >= 4


def test_four_streams_at_once_equal_each_alone(house: House) -> None:
    async def say(stream: Stream, seed: int) -> list[list[int]]:
        said = []
        async with stream:
            for turn in range(2):
                await stream.append(Image(picture(10 * seed + turn)))
                said.append(await ids(await stream.ask(WORDS, SamplingParams(max_tokens=16))))
        return said

    async def work() -> tuple[Any, Any]:
        async with house.engine() as engine:
            alone = [await say(await engine.stream(), seed) for seed in range(4)]
            streams = [await engine.stream() for _ in range(4)]
            return alone, await asyncio.gather(*map(say, streams, range(4)))

    alone, together = house.run(work())
    assert alone == together
    assert len({tuple(said[0]) for said in alone}) == 4


def test_generate_equals_transformers(house: House, omni: tuple[Any, Any]) -> None:
    model, processor = omni
    image, clip = picture(1, 100, 70), frames(3, 4)
    parts = [("image", image), ("video", clip), ("text", WORDS)]
    messages = [{"role": "user", "content": [{"type": kind, kind: value} for kind, value in parts]}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[image], videos=[clip], return_tensors="pt")
    model.model.rope_deltas = model.rope_deltas = None
    result = model.generate(**inputs, max_new_tokens=TOKENS)[0, inputs["input_ids"].shape[1] :]
    expected = processor.tokenizer.decode(result, skip_special_tokens=True)

    async def work() -> list[str]:
        async with house.engine() as engine:
            request = Request(messages=messages)
            params = SamplingParams(max_tokens=TOKENS)
            return await asyncio.gather(*(engine.generate(request, params) for _ in range(2)))

    assert house.run(work()) == [expected, expected]
