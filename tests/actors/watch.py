"""What tests of streams share: pictures, readers that keep what they read, waiting for what must come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from penstock.actors.stream import Reply, Stream
from penstock.streams.event import Event, Token
from penstock.streams.item import VideoFrame

from tests.reference.media import frames, picture

T = TypeVar("T")
FRAME_US = 500_000


def shots(seed: int, count: int, first: int = 0) -> list[VideoFrame]:
    """`count` frames of a video at the model's own rate, the first at tick `first`."""
    clip = frames(seed, count)
    return [VideoFrame(pixels, (first + place) * FRAME_US) for place, pixels in enumerate(clip)]


def big_picture(seed: int) -> np.ndarray:
    return picture(seed, 1600, 1200)


async def until(ready: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so; fails when it does not become so."""
    async with asyncio.timeout(seconds):
        while not ready():  # noqa: ASYNC110 (what is waited for has no event of its own)
            await asyncio.sleep(0.001)


class Reader:
    """Reads the events of a stream to the end, as a task."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.events: list[Event] = []
        self.task = asyncio.create_task(self._read())

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    async def see(self, kind: type[T], count: int = 1) -> list[T]:
        """Wait for at least `count` events of a kind."""
        await until(lambda: len(self.of(kind)) >= count or self.task.done())
        found = self.of(kind)
        assert len(found) >= count, self.events
        return found

    async def _read(self) -> None:
        async for event in self.stream:
            self.events.append(event)


async def ids(reply: Reply) -> list[int]:
    """The ids of a reply, read to its end."""
    return [token.id async for token in reply]


def tokens(events: list[Event], reply: int) -> list[int]:
    return [event.id for event in events if isinstance(event, Token) and event.reply == reply]


async def cancelled(task: asyncio.Task[Any]) -> bool:
    """Cancel a task and wait for it; False where it had ended before."""
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()
