"""The schedule actor: decides each step and what is encoded next; the one that changes streams' lives and hands out pages.

While a step runs, what arrives waits; it takes effect at the step boundary.
"""

from __future__ import annotations

import time
from collections import deque
from typing import assert_never

from ..codecs.errors import PenstockError
from ..engine.plan import Plan, Result
from ..engine.policy import grant
from ..engine.scheduler import Scheduler
from ..engine.stream import Input
from ..streams.event import Closed, Dropped, Error, Event
from .actor import Actor
from .mailbox import Mailbox
from .messages import (
    Accept,
    Announce,
    Broken,
    ClientMessage,
    Close,
    Discard,
    EncodeMessage,
    Failed,
    Fork,
    GenerateMessage,
    Grant,
    Hurry,
    Interrupt,
    Notice,
    Open,
    Park,
    Resolved,
    ScheduleMessage,
    Spans,
    Tell,
)

# Segments of a camera that may wait for the encoder; the oldest go first.
_LATEST_SEGMENTS = 4


class EngineBroken(Exception):
    """A step failed; nothing can be said about the cache any more."""


class _Announced:
    """A segment that waits for its grant."""

    def __init__(self, key: tuple[int, int, int], rows: int, due_us: int, event: Dropped) -> None:
        self.key, self.rows, self.due_us, self.event = key, rows, due_us, event


class Schedule(Actor[ScheduleMessage]):
    """Drives the scheduler: one step in flight at most."""

    name = "schedule"

    def __init__(
        self,
        scheduler: Scheduler,
        encoder_tokens: int,
        mailbox: Mailbox[ScheduleMessage],
        encode: Mailbox[EncodeMessage],
        generate: Mailbox[GenerateMessage],
        client: Mailbox[ClientMessage],
    ) -> None:
        self._scheduler = scheduler
        self._encoder_tokens = encoder_tokens
        self._plan: Plan | None = None  # the step in flight
        self._later: deque[ScheduleMessage] = deque()  # what came while it ran
        self._announced: list[_Announced] = []
        self._granted: dict[tuple[int, int, int], int] = {}  # rows that the encoder works on
        self._clocks: dict[int, int] = {}  # per stream: now minus its media time, in us
        self._latest: set[int] = set()  # streams with policy "latest"
        self._told: dict[int, Tell] = {}
        self.steps = 0
        self.mailbox = mailbox
        self._encode = encode
        self._generate = generate
        self._client = client

    async def handle(self, message: ScheduleMessage) -> None:
        """One message; when no more wait, the next step."""
        if self._plan is not None and not isinstance(message, Result | Broken):
            self._later.append(message)
            return
        self._act(message)
        while self._plan is None and self._later:
            self._act(self._later.popleft())
        while self._plan is None and (waiting := self.mailbox.get_now()) is not None:
            self._act(waiting)
        if self._plan is None:
            self._grant()
            self._plan = self._scheduler.plan()
            self._publish()
            if self._plan is not None:
                self.steps += 1
                self._generate.put_control(self._plan)

    def statistics(self) -> dict[str, int]:
        return {**self._scheduler.statistics(), "steps": self.steps, "segments_waiting": len(self._announced)}

    def check(self) -> None:
        """The conservation law of pages; between steps."""
        self._scheduler.check()

    def _act(self, message: ScheduleMessage) -> None:
        scheduler = self._scheduler
        match message:
            case Result():
                assert self._plan is not None
                plan, self._plan = self._plan, None
                scheduler.commit(plan, message)
            case Broken(reason):
                raise EngineBroken(reason)
            case Open():
                self._open(message)
            case Accept(stream, seq, kind, text, params, done, at):
                scheduler.accept(stream, Input(seq, kind, text, params, done=done, at=at))
            case Fork(stream, twin, before):
                self._fork(stream, twin, before)
            case Interrupt(stream, at):
                scheduler.interrupt(stream, at)
            case Hurry(stream, seq):
                scheduler.hurry(stream, seq)
            case Park(stream, parked):
                scheduler.park(stream, parked)
            case Close(stream, reason):
                self._close(stream, reason)
            case Announce():
                self._announce(message)
            case Spans(stream, spans):
                for span in spans:
                    self._granted.pop((stream, getattr(span, "seq", 0), getattr(span, "index", 0)), None)
                scheduler.spans(stream, spans)
            case Resolved(stream, seq):
                self._resolve(stream, seq)
            case Failed(stream, seq, code, text):
                self._tell(stream, [Error(code, text, seq)])
                for key in [key for key in self._granted if key[:2] == (stream, seq)]:
                    del self._granted[key]
                self._resolve(stream, seq)
            case Notice(stream, event):
                self._tell(stream, [event])
            case _:
                assert_never(message)

    def _open(self, message: Open) -> None:
        try:
            opened = self._scheduler.open(message.stream, message.request)
        except PenstockError as error:
            self._tell(message.stream, [Error(error.code, str(error), fatal=True), Closed("error")])
            return
        if message.request.policy == "latest":
            self._latest.add(message.stream)
        told = self._told.get(message.stream)
        self._told[message.stream] = Tell(message.stream, told.events if told else [], opened)

    def _fork(self, stream: int, twin: int, before: int) -> None:
        try:
            if stream not in self._scheduler.streams:
                raise PenstockError(f"fork: stream {stream} has ended")
            format, why = self._scheduler.fork(stream, twin, before)
        except PenstockError as error:
            self._tell(twin, [Error(error.code, str(error), fatal=True), Closed("error")])
            return
        self._told[twin] = Tell(twin, [], (format, why))

    def _close(self, stream: int, reason: str) -> None:
        if stream in self._scheduler.streams:
            self._publish()
            self._scheduler.close(stream)
            self._tell(stream, [Closed(reason)])
        self._announced = [waiting for waiting in self._announced if waiting.key[0] != stream]
        self._granted = {key: rows for key, rows in self._granted.items() if key[0] != stream}
        self._clocks.pop(stream, None)
        self._latest.discard(stream)

    def _resolve(self, stream: int, seq: int) -> None:
        self._scheduler.resolve(stream, seq)
        told = self._told.setdefault(stream, Tell(stream, []))
        told.resolved.append(seq)

    def _announce(self, message: Announce) -> None:
        """Segments are due when their media time comes round on the stream's own clock, which its first segment sets."""
        stream, now_us = message.stream, time.monotonic_ns() // 1000
        for index, rows, stop_us, modality, start_us in message.sizes:
            media_us = stop_us or 0
            clock = self._clocks.setdefault(stream, now_us - media_us)
            event = Dropped(message.seq, modality.removesuffix("Segment").lower(), 1, start_us, stop_us, "latest")
            key = (stream, message.seq, index)
            self._announced.append(_Announced(key, rows, clock + media_us, event))
        if stream in self._latest:
            mine = [waiting for waiting in self._announced if waiting.key[0] == stream]
            self._discard(mine[: max(0, len(mine) - _LATEST_SEGMENTS)])

    def _discard(self, gone: list[_Announced]) -> None:
        if not gone:
            return
        keys = {waiting.key for waiting in gone}
        self._announced = [waiting for waiting in self._announced if waiting.key not in keys]
        for waiting in gone:
            self._tell(waiting.key[0], [waiting.event])
        self._encode.put_control(Discard([waiting.key for waiting in gone]))

    def _grant(self) -> None:
        """Let the encoder begin on what is due first, as far as its budget goes; a stream's own segments stay in order."""
        if not self._announced or self._granted:
            return
        self._announced.sort(key=lambda waiting: waiting.due_us)
        count = grant([(waiting.due_us, waiting.rows) for waiting in self._announced], self._encoder_tokens)
        chosen, self._announced = self._announced[:count], self._announced[count:]
        # Within a stream the order of inputs holds, whatever their media times say.
        chosen.sort(key=lambda waiting: waiting.key)
        self._granted = {waiting.key: waiting.rows for waiting in chosen}
        self._encode.put_control(Grant([waiting.key for waiting in chosen]))

    def _tell(self, stream: int, events: list[Event]) -> None:
        self._told.setdefault(stream, Tell(stream, [])).events.extend(events)

    def _publish(self) -> None:
        for stream, event in self._scheduler.events():
            self._tell(stream, [event])
        told, self._told = self._told, {}
        for message in told.values():
            self._client.put_control(message)
