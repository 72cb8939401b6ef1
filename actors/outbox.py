"""Events on their way to one client. Bounded: tokens are kept, progress is merged, a client that does not read parks
its stream.

Nothing waits on an outbox. One task reads it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from ..streams.event import Appended, Closed, Credit, Dropped, Event, Held, Token

# Tokens that a client may leave unread before its stream is parked, and events before the oldest progress goes.
MOST_UNREAD_TOKENS = 512
MOST_UNREAD_EVENTS = 1024


class Outbox:
    """The events of one stream, numbered as they are read."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._numbers = 0
        self._tokens = 0
        self._held: dict[int, list[Token]] = {}  # by reply: tokens after an interrupt
        self._readable = asyncio.Event()
        self.attached = False  # somebody reads the events
        self.closed = False

    @property
    def unread_tokens(self) -> int:
        return self._tokens

    @property
    def unread_events(self) -> int:
        return len(self._events)

    def behind(self, unread: int, times: int) -> bool:
        """Whether `times` as much as is unread is more than may be. Where nobody reads events, it is `unread` tokens of
        a reply that count."""
        if not self.attached:
            return unread * times > MOST_UNREAD_TOKENS
        return self.unread_tokens * times > MOST_UNREAD_TOKENS or self.unread_events * times > MOST_UNREAD_EVENTS

    def put(self, event: Event) -> None:
        """Take one event; never waits."""
        if self.closed:
            return
        if isinstance(event, Credit | Held):
            self._keep(lambda other: type(other) is not type(event))
        elif isinstance(event, Dropped) and self._events and (merged := _together(self._events[-1], event)):
            self._events.pop()
            event = merged
        self._events.append(event)
        self._tokens += isinstance(event, Token)
        if len(self._events) > MOST_UNREAD_EVENTS:
            self._let_go()
        self.closed = isinstance(event, Closed)
        self._readable.set()

    def hold(self, reply: int, keep: int) -> None:
        """Take back the unread tokens of `reply` from number `keep` on, until it is known where it ends."""
        held = self._held.setdefault(reply, [])
        held[:0] = self._cut(reply, keep)

    def hold_back(self, token: Token) -> None:
        """The same with a token that has come."""
        self._held.setdefault(token.reply, []).append(token)

    def settle(self, reply: int, keep: int) -> None:
        """A reply has ended with its first `keep` tokens: these are told, also where they were held, and no others."""
        self._cut(reply, keep)
        for token in self._held.pop(reply, []):
            if token.index < keep:  # the interrupt came too late
                self.put(token)

    def _cut(self, reply: int, keep: int) -> list[Token]:
        return self._keep(lambda event: not (isinstance(event, Token) and event.reply == reply and event.index >= keep))

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
        self._numbers += 1
        return msgspec.structs.replace(event, number=self._numbers)

    def _keep(self, wanted) -> list[Token]:
        """Let go of unread events that are not wanted; returns the tokens among them."""
        gone = [event for event in self._events if not wanted(event)]
        if gone:
            self._events = deque(event for event in self._events if wanted(event))
        tokens = [event for event in gone if isinstance(event, Token)]
        self._tokens -= len(tokens)
        return tokens

    def _let_go(self) -> None:
        """The oldest progress event goes; where nobody reads, the oldest of all."""
        if not self.attached:
            self._tokens -= isinstance(self._events.popleft(), Token)
            return
        for place, event in enumerate(self._events):
            if isinstance(event, Appended | Dropped):
                del self._events[place]
                return


def _together(first: Event, second: Dropped) -> Dropped | None:
    """Two neighbouring notices of drops of one kind as one, under the newer input's number."""
    if not isinstance(first, Dropped) or (first.modality, first.reason) != (second.modality, second.reason):
        return None
    starts = [time for time in (first.start_us, second.start_us) if time is not None]
    stops = [time for time in (first.stop_us, second.stop_us) if time is not None]
    return msgspec.structs.replace(
        second,
        count=first.count + second.count,
        start_us=min(starts, default=None),
        stop_us=max(stops, default=None),
    )


class ReaderWatch:
    """Whether the client of one stream reads. `park` is told when it is far behind, and when it is not any more."""

    def __init__(self, outbox: Outbox, park: Callable[[bool], None]) -> None:
        self._outbox = outbox
        self._park = park
        self._parked = False

    def look(self, unread: int) -> None:
        """`unread`: how many tokens of the running reply nobody has read."""
        if self._outbox.closed:
            return
        behind = self._outbox.behind(unread, 2 if self._parked else 1)
        if behind != self._parked:
            self._parked = behind
            self._park(behind)
