"""In which order the calls of one stream take effect: a fork waits for what came before it, and inputs wait for forks
and for questions whose grammar is being compiled. It knows no messages and no replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


class CallOrder:
    """The calls of one stream that wait. `check` raises when the stream has ended."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._changed = asyncio.Event()
        self._forks = 0
        self.compiling = 0  # questions

    @property
    def free(self) -> bool:
        """Whether the next input may take its number."""
        return not (self._forks or self.compiling)

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
    async def fork(self, arrived: Callable[[], bool]) -> AsyncIterator[None]:
        """Inside, all that was appended before has arrived, and other inputs wait."""
        await self.until(lambda: not self.compiling)
        self._forks += 1
        try:
            await self.until(arrived)
            yield
        finally:
            self._forks -= 1
            self.changed()

    async def compile(self, work: Awaitable[None]) -> None:
        """Others wait for `work`; the caller takes its number as soon as this returns."""
        self.compiling += 1
        try:
            await work
        finally:
            self.compiling -= 1
            self.changed()
        self._check()
