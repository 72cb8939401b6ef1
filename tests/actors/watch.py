"""What tests of streams share: pictures, readers that keep what they read, waiting for what must come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
from penstock.actors.engine import Engine
from penstock.actors.stream import Reply, Stream
from penstock.codecs import decoders
from penstock.engine.family import Loaded
from penstock.streams.event import Event, Token
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import SamplingParams

from tests.reference.media import frames, picture

T = TypeVar("T")
FRAME_US = 500_000
WORDS = "What do you see?"


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


def most(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens)


async def texts(engine: Engine, stream: Stream, loaded: Loaded) -> str:
    """The words that the cache of a stream holds."""
    await quiet(engine)
    rows = await stream.transcript()
    return loaded.family.tokenizer.decode([id for row in rows for id in row.ids])


async def quiet(engine: Engine) -> None:
    """Wait until there is nothing to feed."""
    await until(lambda: not engine.statistics()["stepping"])


class Holding:
    """Pictures that come as bytes are not decoded before `go` is set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        patch.setattr(decoders, "decode_picture", self._decode)

    def _decode(self, data: Any, limits: Any) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(20)
        return picture(len(data))
