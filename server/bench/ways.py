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
from collections.abc import Iterable

from ... import Appended, ContextOverflowError, Engine, Evicted, PenstockError, Request, SamplingParams, Stream, Window
from .pairs import Noise, Pair, taken_in

# Rows of the stream that keeps all: what the cache has on a CPU if nothing else is said.
FULL_ROWS = 32_768
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
        self.name, self.ended, self.turns, self.asked = name, "", 0, False
        self._engine, self._rows, self._noise = engine, rows, Noise(fps)
        self.pair_seconds = self._noise.pair_seconds
        limits = {"full": FULL_ROWS, "restart": rows, "refill": rows}
        self._request = Request(
            format="turns",
            video_fps=fps,
            window=Window(rows=rows) if name == "window" else None,
            reserve_tokens=limits.get(name),
        )
        self._stream: Stream | None = None
        self._newest: deque[tuple[int, int]] = deque()  # pairs that a new stream would begin with, and their rows

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
        frames = self._noise.pair(pair)  # drawing it does not count
        began = time.perf_counter()
        try:
            await self._take([pair], [frames])
        except ContextOverflowError as error:
            if not await self._lives_on(error):
                return None
            try:
                await self._take([pair], [frames])
            except ContextOverflowError as again:
                raise self._too_small(again) from None
        self.asked = False
        return (time.perf_counter() - began) * 1e3

    async def ask(self) -> float | None:
        """Milliseconds from a question to its first token; None if there is none. The reply has ended then."""
        self.asked = True
        began = time.perf_counter()
        try:
            return (await self._answer() - began) * 1e3
        except ContextOverflowError as error:
            if not await self._lives_on(error):
                return None
            try:
                return (await self._answer() - began) * 1e3
            except ContextOverflowError as again:
                raise self._too_small(again) from None

    async def _take(self, numbers: list[int], pairs: Iterable[Pair]) -> None:
        """Show pairs and wait until all are in. Raises what the stream says instead."""
        assert self._stream is not None
        left = iter(numbers)
        async for event in taken_in(self._stream, pairs):
            if isinstance(event, Appended):
                self._newest.append((next(left), event.rows))
            elif isinstance(event, Evicted):
                self.turns += 1
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
        numbers = [pair for pair, _ in again]
        await self._take(numbers, map(self._noise.pair, numbers))
        return True

    def _too_small(self, error: PenstockError) -> PenstockError:
        """What to do where a new stream has no room for what the old one had none for."""
        return PenstockError(
            f"--beside {self.name}: expected room in a new stream of {self._rows} rows, got none; give --window more "
            f"rows. {error}"
        )

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
