"""Events on their way to one client. Bounded: tokens are kept, progress is merged, a client that does not read parks its stream.

Nothing waits on an outbox. One task reads it.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from ..streams.event import Appended, Closed, Credit, Event, Held, ReplyDone, Token

# Tokens that a client may leave unread before its stream is parked, and other events before the oldest progress goes.
MOST_UNREAD_TOKENS = 512
_MOST_EVENTS = 1024
_PROGRESS = (Appended, Credit, Held)


class Outbox:
    """The events of one stream, numbered as they are put."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._numbers = 0
        self._tokens = 0
        self._readable = asyncio.Event()
        self.attached = False  # somebody reads the events
        self.closed = False

    def put(self, event: Event) -> None:
        """Take one event; never waits."""
        if self.closed:
            return
        if isinstance(event, Credit | Held):
            self._events = deque(other for other in self._events if type(other) is not type(event))
        self._numbers += 1
        self._events.append(msgspec.structs.replace(event, number=self._numbers))
        self._tokens += isinstance(event, Token)
        if len(self._events) > _MOST_EVENTS:
            self._merge()
        self.closed = isinstance(event, Closed)
        self._readable.set()

    def cut(self, reply: int, keep: int) -> None:
        """Tokens of `reply` from number `keep` on have been taken back; those that nobody has read yet are not told."""
        kept = deque(
            event
            for event in self._events
            if not (isinstance(event, Token) and event.reply == reply and event.index >= keep)
        )
        self._tokens -= len(self._events) - len(kept)
        self._events = kept

    @property
    def unread_tokens(self) -> int:
        return self._tokens

    async def get(self) -> Event | None:
        """The next event; None after the last. A cancelled wait has taken nothing."""
        self.attached = True
        while not self._events:
            if self.closed:
                return None
            self._readable.clear()
            await self._readable.wait()
        event = self._events.popleft()
        self._tokens -= isinstance(event, Token)
        return event

    def _merge(self) -> None:
        """Let the oldest progress event go; where nobody reads, the oldest of all."""
        for place, event in enumerate(self._events):
            if isinstance(event, _PROGRESS) or (not self.attached and not isinstance(event, ReplyDone)):
                del self._events[place]
                self._tokens -= isinstance(event, Token)
                return
