"""Streams that have lived for a while before a film is shown: does a model still answer as in its first minute?

In: an engine, how long, and a window. Out: a house (doors.py) whose streams are copies of one that has seen so many
minutes of another film. Media times of what is shown then go on from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from penstock import Appended, Engine, Event, InputError, Item, Request, SamplingParams, Stream, VideoFrame, Window

from ..film import draw

_FPS = 2  # frames a second that Brook takes


class LateStream:
    """A stream as if it had begun `since_us` later than it has."""

    def __init__(self, stream: Stream, since_us: int) -> None:
        self._stream, self._since_us = stream, since_us
        self.ask, self.close = stream.ask, stream.close

    async def append(self, item: Item) -> None:
        pts_us: int = getattr(item, "pts_us", None) or 0
        await self._stream.append(msgspec.structs.replace(item, pts_us=pts_us + self._since_us))

    async def fork(self) -> LateStream:
        return LateStream(await self._stream.fork(), self._since_us)

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._stream:
            if isinstance(event, Appended) and event.stop_us is not None:
                event = msgspec.structs.replace(event, stop_us=event.stop_us - self._since_us)
            yield event


class LateHouse:
    """Opens copies of one stream that has lived."""

    def __init__(self, stream: Stream, since_us: int) -> None:
        self._stream = LateStream(stream, since_us)

    async def stream(self, _: Request) -> Any:
        return await self._stream.fork()

    async def generate(self, _: Request, __: SamplingParams | None = None) -> str:
        raise InputError(
            "a house whose streams have lived: expected a stream, got a prompt, which has nothing before it"
        )


async def lived(engine: Engine, minutes: float, rows: int) -> LateHouse:
    """A house whose streams have seen so many minutes, in a window of so many rows."""
    stream = await engine.stream(Request(format="turns", window=Window(rows=rows)))
    frames = 2 * round(minutes * 60 * _FPS / 2)
    for frame in range(frames):
        await stream.append(VideoFrame(draw(frame / _FPS), pts_us=round(frame / _FPS * 1e6)))
    last_us = round((frames - 1) / _FPS * 1e6)
    async for event in stream:
        if isinstance(event, Appended) and (event.stop_us or 0) >= last_us:
            break
    return LateHouse(stream, round(frames / _FPS * 1e6))
