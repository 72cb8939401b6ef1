"""The oracles once more through the actors: a dense forward of plain `transformers`, its `generate`, and a stream alone."""

from __future__ import annotations

import asyncio
from typing import Any

import torch
from penstock.actors.stream import Stream
from penstock.engine.family import Loaded
from penstock.engine.stream import TranscriptRow
from penstock.streams.event import Token
from penstock.streams.item import Image
from penstock.streams.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import Reader, ids, shots, until
from tests.engine.story import Clip, Story
from tests.reference.dense import Sequence, build, forward
from tests.reference.media import frames, picture

WORDS = "What do you see?"
TOKENS = 48


def told(rows: list[TranscriptRow], question: int, clips: dict[int, Clip], wrappers: set[int], story: Story) -> Sequence:
    """Tell the story of one live stream: which clip went in where, and what was drawn, in the order of the rows.

    `question`: rows before the reply. Reads of the transcript only which input and how many tokens come next.
    """
    asked = False
    for row in rows:
        if row.seen is not None:
            story.media(clips[row.seen.seq])
        elif row.row >= question:
            for id in row.ids:
                if id not in wrappers:
                    story.token(id)
        if not asked and row.row + len(row.ids) == question:
            asked = True
            story.ask(WORDS)
    return story  # type: ignore[return-value]


async def live(stream: Stream, clip: Any) -> tuple[list[Token], list[TranscriptRow]]:
    """Two pairs of frames, a question, and three pairs from another task while the reply runs."""
    items = [*shots_of(clip)]
    for item in items[:4]:
        await stream.append(item)
    reply = await stream.ask(WORDS, SamplingParams(max_tokens=TOKENS))
    read: list[Token] = []

    async def film() -> None:
        for place in range(4, len(items), 2):
            await until(lambda place=place: len(read) >= 4 * (place // 2 - 1))
            for item in items[place : place + 2]:
                await stream.append(item)

    camera = asyncio.create_task(film())
    async for token in reply:
        read.append(token)
    await camera
    rows: list[TranscriptRow] = []
    async with asyncio.timeout(20):
        while len([row for row in rows if row.seen]) < len(items) // 2:
            rows = await stream.transcript()
    return read, rows
