"""What the server still has to send to one client: bounded, in order, never waited for by those who put into it.

In come encoded text frames; out go the same, one by one, to the one sender task of the connection. Knows neither
streams nor sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque


class HangUp(Exception):
    """Ends a connection: the close code and the reason that its client is told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class SendQueue:
    """Text frames on their way to one client. `put` never waits; more than the limit unread is a HangUp."""

    def __init__(self, limit_bytes: int, limit_seconds: float) -> None:
        self._limit_bytes = limit_bytes
        self._limit_seconds = limit_seconds
        self._frames: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()

    def put(self, frame: bytes) -> None:
        """Queue one frame. HangUp (1013) where the client has left too many bytes unread."""
        self._bytes += len(frame)
        if self._bytes > self._limit_bytes:
            raise HangUp(1013, f"slow reader: {self._bytes} bytes unread, at most {self._limit_bytes}")
        self._frames.append((asyncio.get_running_loop().time(), frame))
        self._filled.set()
        self._sent.clear()

    async def next(self) -> bytes:
        """The oldest frame, which counts as unread until `done`. HangUp (1013) where it has waited too long.

        Safe to cancel: a frame is taken or it is not.
        """
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        since, frame = self._frames[0]
        waited = asyncio.get_running_loop().time() - since
        if waited > self._limit_seconds:
            raise self.too_slow(waited)
        return frame

    def done(self) -> None:
        """The frame that `next` gave has been sent."""
        _, frame = self._frames.popleft()
        self._bytes -= len(frame)
        if not self._frames:
            self._sent.set()

    def too_slow(self, seconds: float) -> HangUp:
        """The HangUp for output that nobody has read for `seconds`."""
        return HangUp(1013, f"slow reader: output unread for {seconds:.1f} s, at most {self._limit_seconds:g} s")

    async def wait_sent(self) -> None:
        """Wait until everything has been sent. Safe to cancel."""
        await self._sent.wait()
