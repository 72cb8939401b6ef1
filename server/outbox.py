"""What the server still has to send to one client: bounded, in order, never waited for by those who put into it.

In come encoded text frames; out go the same, one by one, to the one sender task of the connection. If its client asks
for that, frames that have been sent are kept as well, since some may be lost with the socket. Knows neither streams nor
sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque

from .errors import HangUp


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
        self._uncounted: int | None = None  # frames that wait and are not counted; None: none are
        self._kept: deque[bytes] = deque()  # the newest of those that were counted and sent
        self._kept_bytes = 0
        self._count = 0  # frames that were counted and sent
        self._again: deque[bytes] = deque()  # frames to be sent once more, before all others

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
        while not self._frames and not self._again:
            self._filled.clear()
            await self._filled.wait()
        if self._again:
            return self._again[0]
        since, frame = self._frames[0]
        waited = asyncio.get_running_loop().time() - since
        if waited > self._limit_seconds:
            raise self.too_slow(waited)
        return frame

    def done(self) -> None:
        """The frame that `next` gave has been sent."""
        if self._again:
            frame = self._again.popleft()
            if not self._again:
                self._wait_from_now()
        else:
            _, frame = self._frames.popleft()
            self._bytes -= len(frame)
        if self._uncounted == 0:
            self._keep(frame)
        elif self._uncounted is not None:
            self._uncounted -= 1
        if not self._frames and not self._again:
            self._sent.set()

    def count(self) -> None:
        """Count what is put from now on, and keep the newest of it, up to the limit."""
        if self._uncounted is None:
            self._uncounted = len(self._frames)

    def rewind(self, received: int, first: bytes) -> bool:
        """Send once more what comes after the first `received` frames that count, and `first` before that. False, and
        nothing is changed, where not all of it is kept.

        What is sent once more was read in time when it was sent first: it does not count as unread, and what waits
        behind it waits from then on.
        """
        if self._uncounted is None or not self._count - len(self._kept) <= received <= self._count:
            return False
        for _ in range(self._uncounted):  # they have come: who knows this connection has read them
            if self._again:
                self._again.popleft()
            else:
                self._bytes -= len(self._frames.popleft()[1])
        again = [self._kept.pop() for _ in range(self._count - received)][::-1]
        self._kept_bytes -= sum(map(len, again))
        self._again.extendleft(reversed([first, *again]))
        self._count, self._uncounted = received, 1
        self._filled.set()
        self._sent.clear()
        return True

    def _wait_from_now(self) -> None:
        now = asyncio.get_running_loop().time()
        self._frames = deque((now, frame) for _, frame in self._frames)

    def _keep(self, frame: bytes) -> None:
        self._kept.append(frame)
        self._kept_bytes += len(frame)
        self._count += 1
        while self._kept_bytes > self._limit_bytes:
            self._kept_bytes -= len(self._kept.popleft())

    def too_slow(self, seconds: float) -> HangUp:
        """The HangUp for output that nobody has read for `seconds`."""
        return HangUp(1013, f"slow reader: output unread for {seconds:.1f} s, at most {self._limit_seconds:g} s")

    async def wait_sent(self) -> None:
        """Wait until everything has been sent. Safe to cancel."""
        await self._sent.wait()
