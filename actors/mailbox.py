"""An actor's mailbox: two lanes. Data is bounded in bytes; control is small, read first and never refused.

Atomic under cancellation: a cancelled `put` has put nothing, a cancelled `get` has taken nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

M = TypeVar("M", bound=msgspec.Struct)
Observer = Callable[[str, str, Any], None]


class MailboxClosed(Exception):
    """The actor behind this mailbox has stopped."""


class Mailbox(Generic[M]):
    """Messages for one actor, which is its only reader."""

    def __init__(self, name: str, data_bytes: int, observer: Observer | None = None) -> None:
        self.name = name
        self._limit = data_bytes
        self._observer = observer  # told (mailbox, lane, message) of each message put
        self._control: deque[M] = deque()
        self._data: deque[tuple[M, int]] = deque()
        self._bytes = 0
        self._peak_bytes = 0
        self._readable: asyncio.Event = asyncio.Event()
        self._writers: deque[asyncio.Event] = deque()  # one each, in the order in which they came
        self._closed = False

    async def put(self, message: M, size_bytes: int = 0) -> None:
        """Data: waits its turn while the lane is full (one message always fits an empty lane). Raises MailboxClosed."""
        mine = asyncio.Event()
        self._writers.append(mine)
        try:
            while not self._closed and (self._writers[0] is not mine or not self._fits(size_bytes)):
                mine.clear()
                await mine.wait()
            self.put_now(message, size_bytes)
        finally:
            self._writers.remove(mine)
            self._call_writer()

    def put_now(self, message: M, size_bytes: int = 0) -> None:
        """Data, whatever the lane holds; for senders that keep a bound of their own."""
        self._check()
        self._data.append((self._seen("data", message), size_bytes))
        self._bytes += size_bytes
        self._peak_bytes = max(self._peak_bytes, self._bytes)
        self._readable.set()

    def put_control(self, message: M) -> None:
        """Control: never waits."""
        self._check()
        self._control.append(self._seen("control", message))
        self._readable.set()

    async def get(self) -> M:
        """The next message, control first. Raises MailboxClosed when it is closed and empty."""
        while True:
            message = self.get_now()
            if message is not None:
                return message
            if self._closed:
                raise MailboxClosed(self.name)
            self._readable.clear()
            await self._readable.wait()

    def get_now(self) -> M | None:
        """The next message if there is one."""
        if self._control:
            return self._control.popleft()
        if not self._data:
            return None
        message, size = self._data.popleft()
        self._bytes -= size
        self._call_writer()
        return message

    def close(self) -> None:
        """Nothing more goes in, also from writers that wait; what is in can still be read."""
        self._closed = True
        self._readable.set()
        for writer in self._writers:
            writer.set()

    def statistics(self) -> dict[str, int]:
        return {
            "control": len(self._control),
            "data": len(self._data),
            "data_bytes": self._bytes,
            "peak_bytes": self._peak_bytes,
            "writers": len(self._writers),
        }

    def _fits(self, size_bytes: int) -> bool:
        return not self._data or self._bytes + size_bytes <= self._limit

    def _call_writer(self) -> None:
        """There may be room for the writer that came first; it looks for itself."""
        if self._writers:
            self._writers[0].set()

    def _check(self) -> None:
        if self._closed:
            raise MailboxClosed(self.name)

    def _seen(self, lane: str, message: M) -> M:
        if self._observer is not None:
            self._observer(self.name, lane, message)
        return message
