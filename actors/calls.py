"""Calls of one stream that wait, and copies of it that other calls wait for. Knows no engine and no messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from .on_way import OnWay


class Calls:
    """The calls of one stream. `check` raises where it has ended, which ends a wait."""

    def __init__(self, on_way: OnWay, check: Callable[[], None]) -> None:
        self._on_way = on_way
        self._check = check
        self._copies = 0  # that wait for what is on its way; new inputs wait for them
        self._changed = asyncio.Event()

    @property
    def free(self) -> bool:
        """No copy waits: an input may come."""
        return not self._copies

    def wake(self) -> None:
        """Something has changed that a call may wait for."""
        self._changed.set()

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until this is so. Safe to cancel."""
        while not ready():
            self._changed.clear()
            await self._changed.wait()
            self._check()

    async def turn(self) -> None:
        """Wait until an input may come. Safe to cancel."""
        await self.until(lambda: self.free)

    @asynccontextmanager
    async def encoded(self) -> AsyncIterator[None]:
        """Inside, all that was appended before is encoded, and other inputs wait."""
        self._check()
        self._copies += 1
        try:
            await self.until(lambda: not self._on_way)
            yield
        finally:
            self._copies -= 1
            self._changed.set()
