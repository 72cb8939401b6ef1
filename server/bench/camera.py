"""A client that shows pictures at a fixed pace over a WebSocket, and notes when it hears what of them.

In: a stream on a server. Out: for each piece of media when it was due and when it was in the KV cache, for each token
when it came and what it could see, and how late the sends were. Sends keep absolute times: a server that is slow does
not slow the camera down, and a camera that was itself too slow can be told from a server that was.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

from PIL import Image as Pictures

from ...errors import PenstockError
from ...streams.event import Appended, Closed, Dropped, Error, ReplyDone, Token
from ...streams.item import Image, VideoFrame
from ...streams.requests.request import SamplingParams
from ..client_stream import ClientStream
from .arithmetic import Said, Shown, late
from .peers.child import picture

SIDE = 224
_ALLOWED = 0.1  # of an interval: a send that is later makes its round invalid
_GRACE_S = 3.0  # how long to wait at the end for pieces that are on their way


def jpegs(seed: int, count: int) -> list[bytes]:
    """So many different pictures of 224 x 224, as JPEG files. Each seed gives others."""
    return list(_jpegs(seed, count))


def _jpegs(seed: int, count: int) -> Iterator[bytes]:
    for place in range(count):
        file = io.BytesIO()
        Pictures.fromarray(picture(seed, place, SIDE)).save(file, "JPEG", quality=85)
        yield file.getvalue()


class PacedCamera:
    """One camera, and what its client hears: `async with PacedCamera(stream, pictures, fps, media) as camera`.

    pictures: the files to show, one after the other. media: "image", where each picture is a piece, or "frame", where
    the model takes them in pairs. said: the tokens of all replies so far. faults: what went wrong, in words.
    """

    def __init__(self, stream: ClientStream, pictures: list[bytes], fps: float, media: str) -> None:
        self.interval = 1 / fps
        self.said: list[Said] = []
        self.faults: list[str] = []
        self._stream, self._item = stream, Image if media == "image" else VideoFrame
        self._pictures = iter(pictures)
        self._number = 0  # of the next picture
        self._dues: dict[int, float] = {}  # by media time
        self._starts: list[float] = []  # when the paced sends began, in the order of their dues
        self._paced: list[float] = []
        self._in: dict[int, tuple[int, float]] = {}  # by where a piece stops: where it starts, when it was heard of
        self._heard = asyncio.Event()
        self._ended = 0  # replies
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listening = asyncio.create_task(self._listen(), name="bench.camera.listen")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.close()
        assert self._listening is not None
        await self._listening

    async def take_in(self, count: int) -> None:
        """Show so many pictures, each when the one before it is in."""
        for _ in range(count):
            stop_us = self._next(time.perf_counter())
            await self._stream.append(self._made(stop_us))
            await self._until(lambda stop_us=stop_us: self._covered(stop_us))

    async def show(self, start: float, seconds: float | None = None) -> None:
        """Show pictures from the time `start` on, for so many seconds or until it is cancelled."""
        sends: list[asyncio.Task[int]] = []
        try:
            number = 0
            while seconds is None or number * self.interval < seconds:
                due = start + number * self.interval
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                item = self._made(self._next(due))
                self._paced.append(due)
                self._starts.append(time.perf_counter())
                sends.append(asyncio.create_task(self._stream.append(item), name="bench.camera.send"))
                number += 1
        finally:
            for result in await asyncio.gather(*sends, return_exceptions=True):
                if isinstance(result, BaseException):
                    self.faults.append(str(result))

    async def speak(self, question: str, params: SamplingParams) -> list[Said]:
        """Ask, and wait until the reply has ended; its tokens."""
        before, ended = len(self.said), self._ended
        await self._stream.ask(question, params)
        await self._until(lambda: self._ended > ended)
        return self.said[before:]

    async def ask(self, question: str, params: SamplingParams) -> None:
        """Ask, and wait only until the reply begins."""
        await self._stream.ask(question, params)

    async def interrupt(self) -> None:
        """End the reply that is spoken, if there is one."""
        with suppress(PenstockError):
            await self._stream.interrupt()

    async def settle(self) -> None:
        """End the media, and wait a while for all pieces that were shown."""
        with suppress(TimeoutError, PenstockError):
            async with asyncio.timeout(_GRACE_S):
                await self._stream.end()
                await self._until(lambda: all(map(self._covered, self._dues)))

    def shown(self, start: float, stop: float) -> list[Shown]:
        """The pieces that were due in this time, in order. One that never went in has one frame and no `kv`."""
        pieces = [Shown(self._dues[stop_us], stop_us, heard) for stop_us, (_, heard) in self._in.items()]
        pieces += [Shown(due, at, None) for at, due in self._dues.items() if not self._covered(at)]
        return sorted(piece for piece in pieces if start <= piece.due <= stop)

    @property
    def late(self) -> int:
        """How many paced sends were too late: then the round says nothing about the server."""
        return late(self._paced, self._starts, self.interval * _ALLOWED)

    def _next(self, due: float) -> int:
        """The media time of the next picture, in microseconds."""
        at = round(self._number * self.interval * 1_000_000)
        self._number += 1
        self._dues[at] = due
        return at

    def _made(self, pts_us: int) -> Image | VideoFrame:
        return self._item(next(self._pictures), pts_us=pts_us)

    def _covered(self, at: int) -> bool:
        return any(start_us <= at <= stop_us for stop_us, (start_us, _) in self._in.items())

    async def _listen(self) -> None:
        async for event in self._stream:
            now = time.perf_counter()
            match event:
                case Appended(start_us=int(start_us), stop_us=int(stop_us)):
                    self._in[stop_us] = start_us, now
                case Token():
                    self.said.append(Said(now, None if event.seen is None else event.seen.stop_us))
                case ReplyDone():
                    self._ended += 1
                case Dropped():
                    self.faults.append(f"{event.count} pieces dropped: {event.reason}")
                case Error():
                    self.faults.append(event.message)
                case Closed():
                    self._ended += 1  # of nothing more will be heard
            self._heard.set()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            if self._stream.closed:
                raise PenstockError(self.faults[-1] if self.faults else "the stream has ended")
            self._heard.clear()
            await self._heard.wait()
