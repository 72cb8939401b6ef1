"""In which order the calls of one stream take effect: a fork waits for what came before it, and inputs wait for forks
and for questions whose grammar is being compiled. It knows no messages and no replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from .on_way import OnWay


class CallOrder:
    """The calls of one stream that wait. `check` raises when the stream has ended."""

    def __init__(self, on_way: OnWay, check: Callable[[], None]) -> None:
        self._on_way = on_way
        self._check = check
        self._changed = asyncio.Event()
        self._forks = 0
        self._compiling = 0  # questions
        self.interrupted = False  # the question whose grammar is being compiled

    @property
    def free(self) -> bool:
        """Whether the next input may take its number."""
        return not (self._forks or self._compiling)

    def changed(self) -> None:
        """Something has happened that a call may wait for."""
        self._changed.set()

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait. Raises what `check` does after it has waited."""
        while not ready():
            self._changed.clear()
            await self._changed.wait()
            self._check()

    async def turn(self) -> None:
        """Wait until the next input may take its number."""
        await self.until(lambda: self.free)

    @asynccontextmanager
    async def fork(self) -> AsyncIterator[None]:
        """Inside, all that was appended before has arrived, and other inputs wait."""
        self._check()
        await self.until(lambda: not self._compiling)
        self._forks += 1
        try:
            await self.until(lambda: not self._on_way)
            yield
        finally:
            self._forks -= 1
            self.changed()

    async def compile(self, work: Awaitable[None]) -> bool:
        """Others wait for `work`; the caller takes its number as soon as this returns. Whether it was interrupted."""
        self._compiling, self.interrupted = self._compiling + 1, False
        try:
            await work
        finally:
            self._compiling -= 1
            self.changed()
        self._check()
        return self.interrupted
