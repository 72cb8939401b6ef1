"""Ways in which a camera without an end lives on in a cache with an end: what `penstock bench endless` compares.

In: an engine, numbers of pairs of frames, questions. Out: how long each took. It does not know what is made of that.

window      one stream, whose oldest rows leave
full        one stream that keeps all, until it is refused more
restart     a new stream whenever one is full; it knows nothing of the one before
refill      a new stream whenever one is full; it is shown the newest media of a window again
"""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from ... import (
    Appended,
    ContextOverflowError,
    Engine,
    Error,
    Evicted,
    PenstockError,
    Request,
    SamplingParams,
    Stream,
    VideoFrame,
    Window,
)

WAYS = ("window", "full", "restart", "refill")
# Rows of the stream that keeps all: what the cache has on a CPU if nothing else is said.
FULL_ROWS = 32_768
_SIDE, _PICTURES = 224, 16
_TOKENS = 8
# Of a window, what a stream that is filled again is shown: as much as a window has after a slide.
_SHOWN_AGAIN = 7 / 8


class Way:
    """One camera.

    ended: why it shows nothing any more; empty: it goes on. turns: how often rows have left or a new stream was opened.
    pair_seconds: how much media time a pair of frames is. asked: nothing was shown since the last question.
    """

    def __init__(self, name: str, engine: Engine, fps: float, rows: int) -> None:
        """`rows`: the most that a stream has in the KV cache, but for `full`."""
        self.name, self.ended, self.turns = name, "", 0
        self.pair_seconds, self.asked = 2 / fps, False
        self._engine, self._step_us, self._rows = engine, 1e6 / fps, rows
        limits = {"full": FULL_ROWS, "restart": rows, "refill": rows}
        self._request = Request(
            format="turns",
            video_fps=fps,
            window=Window(rows=rows) if name == "window" else None,
            reserve_tokens=limits.get(name),
        )
        self._stream: Stream | None = None
        self._newest: deque[tuple[int, int]] = deque()  # pairs that a new stream would begin with, and their rows
        self._pictures = np.random.default_rng(0).integers(0, 256, (_PICTURES, _SIDE, _SIDE, 3), dtype=np.uint8)

    async def open(self) -> None:
        """Open the first stream."""
        self._stream = await self._engine.stream(self._request)

    async def close(self) -> None:
        """End what is open."""
        if self._stream is not None:
            await self._stream.close()

    @property
    def rows(self) -> int:
        """Rows of the stream in the KV cache."""
        reach = self._engine.statistics()["window_by_stream"]
        return 0 if self._stream is None else reach.get(self._stream.id, {"rows": 0})["rows"]

    async def show(self, pair: int) -> float | None:
        """Milliseconds until the next pair of frames is in the KV cache; None if it never is."""
        if self.ended:
            return None
        frames = [self._frame(2 * pair), self._frame(2 * pair + 1)]  # drawing them does not count
        began = time.perf_counter()
        try:
            await self._take([(pair, frames)])
        except ContextOverflowError as error:
            if not await self._lives_on(error):
                return None
            await self._take([(pair, frames)])
        self.asked = False
        return (time.perf_counter() - began) * 1e3

    async def ask(self) -> float | None:
        """Milliseconds from a question to its first token; None if there is none. The reply has ended then."""
        self.asked = True
        began = time.perf_counter()
        try:
            return (await self._answer() - began) * 1e3
        except ContextOverflowError as error:
            return (await self._answer() - began) * 1e3 if await self._lives_on(error) else None

    def _frame(self, number: int) -> VideoFrame:
        """No two frames are the same, so none is known to the encoder already."""
        pixels = np.roll(self._pictures[number % _PICTURES], number, axis=1)
        return VideoFrame(pixels, pts_us=round(number * self._step_us))

    async def _take(self, pairs: list[tuple[int, list[VideoFrame]]]) -> None:
        """Show pairs and wait until all are in. Raises what the stream says instead."""
        assert self._stream is not None
        for _, frames in pairs:
            for frame in frames:
                await self._stream.append(frame)
        waiting = deque(pairs)
        async for event in self._stream:
            match event:
                case Appended(rows=rows):
                    self._newest.append((waiting.popleft()[0], rows))
                    if not waiting:
                        break
                case Evicted():
                    self.turns += 1
                case Error(code, message):
                    raise (ContextOverflowError if code == ContextOverflowError.code else PenstockError)(message)
        self._forget()

    def _forget(self) -> None:
        """Of the newest pairs only those stay that a new stream would be shown."""
        most = self._rows * _SHOWN_AGAIN if self.name == "refill" else 0
        while sum(rows for _, rows in self._newest) > most and len(self._newest) > 1:
            self._newest.popleft()

    async def _lives_on(self, error: PenstockError) -> bool:
        """The stream is full: go on with a new one, if this way does."""
        if self.name not in ("restart", "refill"):
            self.ended = str(error)
            return False
        self.turns += 1
        again, self._newest = self._newest, deque()
        await self.close()
        await self.open()
        await self._take([(pair, [self._frame(2 * pair), self._frame(2 * pair + 1)]) for pair, _ in again])
        return True

    async def _answer(self) -> float:
        """When the first token came."""
        assert self._stream is not None
        reply = await self._stream.ask("What do you see?", SamplingParams(max_tokens=_TOKENS, ignore_eos=True))
        first = 0.0
        async for _ in reply:
            first = first or time.perf_counter()
        if not first:
            raise ContextOverflowError("expected a token, and there was no row for one")
        return first
