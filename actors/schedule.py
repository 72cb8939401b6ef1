"""The schedule actor: decides each step and what is encoded next; the one that changes streams' lives and hands out
pages.

While a step runs, what arrives waits; it takes effect at the step boundary.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from typing import Any, assert_never

from ..engine.conversation.state import Input
from ..engine.plan import Plan, Result
from ..engine.scheduling.pace import Pace
from ..engine.scheduling.policy import grant
from ..engine.scheduling.scheduler import Scheduler
from ..engine.span import Span
from ..errors import ContextOverflowError, NotFiniteError, OutOfMemoryError, PenstockError
from ..streams.event import Closed, Dropped, Error, Event, ReplyStarted, Resting
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
    Spelt,
    Tell,
    Transcribe,
)
from .words import Words

log = logging.getLogger("penstock.actors")

# Segments of a camera that may wait for the encoder; the oldest go first.
_LATEST_SEGMENTS = 4
# Rows of spans that may wait for their turn before a stream's next segments are encoded.
_AHEAD_ROWS = 4096
# No segment is due later than this from now, whatever its media time says; and times that leap farther, or come so much
# too late, set a stream's clock anew.
_FARTHEST_US = 10_000_000

Key = tuple[int, int, int]  # stream, seq, index


class EngineBroken(Exception):
    """A step failed; nothing can be said about the cache any more."""


class _Announced:
    """A segment that waits for its grant."""

    def __init__(self, key: Key, rows: int, due_us: int, event: Dropped) -> None:
        self.key = key
        self.rows = rows
        self.due_us = due_us
        self.event = event  # what is told where it is dropped


class Schedule(Actor[ScheduleMessage]):
    """Drives the scheduler: one step in flight at most."""

    name = "schedule"

    def __init__(
        self,
        scheduler: Scheduler,
        steps: Pace,
        turns: Pace,
        mailbox: Mailbox[ScheduleMessage],
        encode: Mailbox[EncodeMessage],
        generate: Mailbox[GenerateMessage],
        client: Mailbox[ClientMessage],
        words: Words,
    ) -> None:
        self._scheduler = scheduler
        self._words = words
        scheduler.spell_apart()
        self._pace = steps  # of rows that a step appends
        self._turns = turns  # of rows that the encoder is granted at once
        self._began = self._granted_at = 0.0
        self._granted_rows = 0
        self._plan: Plan | None = None  # the step in flight
        self._later: deque[ScheduleMessage] = deque()  # what came while it ran
        self._announced: dict[int, deque[_Announced]] = {}  # by stream, in the order in which they have to be encoded
        self._granted: set[Key] = set()  # what the encoder works on
        self._clocks: dict[int, tuple[int, int]] = {}  # per stream: now minus its media time, and its last, in us
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
            self._scheduler.pace(self._pace.rows)
            self._plan = self._scheduler.plan()
            self._words.find(self._scheduler.unspelled())
            self._publish()
            if self._plan is not None:
                self.steps += 1
                self._began = time.perf_counter()
                self._generate.put_control(self._plan)

    def statistics(self) -> dict[str, Any]:
        return {
            **self._scheduler.statistics(),
            "steps": self.steps,
            "segments_waiting": sum(map(len, self._announced.values())),
            "stepping": int(self._plan is not None),
        }

    def check(self) -> None:
        """The conservation law of pages; between steps."""
        self._scheduler.check()

    def _act(self, message: ScheduleMessage) -> None:
        """Do what a message says. What goes wrong in one stream's own message ends that stream, not the engine."""
        if isinstance(message, Result | Broken):
            self._perform(message)
            return
        try:
            self._perform(message)
        except Exception as error:
            stream = message.twin if isinstance(message, Fork) else message.stream
            log.exception("%s of stream %d failed", type(message).__name__, stream)
            failure = PenstockError(f"{type(message).__name__} failed: {type(error).__name__}: {error}")
            if stream in self._scheduler.streams:
                self._fail(stream, failure)
            elif isinstance(message, Open | Fork):
                self._refuse(stream, failure)

    def _perform(self, message: ScheduleMessage) -> None:
        scheduler = self._scheduler
        match message:
            case Result():
                assert self._plan is not None
                plan, self._plan = self._plan, None
                self._timed(plan)
                scheduler.commit(plan, message)
                for stream in message.failed:
                    self._fail(
                        stream, OutOfMemoryError("memory ran out in a step; the stream that asked for most ends")
                    )
                for stream in message.poisoned:
                    self._fail(stream, NotFiniteError("the model gave values that are not finite: the stream ends"))
            case Broken(reason):
                raise EngineBroken(reason)
            case Open():
                self._open(message)
            case Accept(stream, seq, kind, text, params, done, at, reply, despite):
                fields = {"done": done, "at": at, "reply": reply, "despite": despite}
                scheduler.accept(stream, Input(seq, kind, text, params, **fields))
            case Fork():
                self._fork(message)
            case Interrupt(stream, until, reply, at):
                scheduler.interrupt(stream, at, reply, until)
            case Hurry(stream, seq):
                scheduler.hurry(stream, seq)
            case Park(stream, parked):
                scheduler.park(stream, parked)
            case Transcribe(stream, ticket):
                if stream in scheduler.streams:
                    self._news(stream).transcripts.append((ticket, scheduler.transcript(stream)))
            case Close(stream, reason):
                self._close(stream, reason)
            case Announce():
                self._announce(message)
            case Spans(stream, spans):
                done = {(stream, span.seq, span.index) for span in spans if isinstance(span, Span)}
                if self._granted and self._granted <= done:
                    self._turns.took(self._granted_rows, (time.perf_counter() - self._granted_at) * 1000)
                self._granted -= done
                scheduler.spans(stream, spans)
            case Resolved(stream, seq):
                scheduler.resolve(stream, seq)
                self._news(stream).resolved.append(seq)
            case Spelt(stream, text, behind, ids):
                scheduler.spelt(stream, text, behind, ids)
            case Failed(stream, seq, index, code, text):
                self._granted.discard((stream, seq, index))
                self._lost(stream, Error(code, text, seq))
            case Notice(stream, event):
                if isinstance(event, Error) and event.seq is not None:
                    self._lost(stream, event)
                else:
                    self._collect()
                    self._news(stream).events.append(event)
            case _:
                assert_never(message)

    def _open(self, message: Open) -> None:
        try:
            opened = self._scheduler.open(message.stream, message.request)
        except PenstockError as error:
            self._refuse(message.stream, error)
            return
        self._announced[message.stream] = deque()
        if message.request.policy == "latest":
            self._latest.add(message.stream)
        self._told[message.stream] = Tell(message.stream, [], opened)

    def _fork(self, message: Fork) -> None:
        stream, twin = message.stream, message.twin
        try:
            if stream not in self._scheduler.streams:
                raise PenstockError(f"fork: expected an open stream, got stream {stream}, which has ended")
            opened = self._scheduler.fork(stream, twin, message.before, message.again)
        except PenstockError as error:
            self._refuse(twin, error)
            return
        self._announced[twin] = deque()
        if stream in self._latest:
            self._latest.add(twin)
        if stream in self._clocks:
            self._clocks[twin] = self._clocks[stream]
        state = self._scheduler.streams[twin]
        reply = state.reply
        if reply is None or message.again is not None:
            self._told[twin] = Tell(twin, [], opened)
        else:
            held = state.layout.format.holds and reply.params.hold and not state.over
            events: list[Event] = [ReplyStarted(reply.id, reply.seq, held)]
            if reply.held:
                events.append(Resting(reply.id, len(reply.ids)))
            self._told[twin] = Tell(twin, events, opened, running=(reply.id, reply.seq, len(reply.ids)))

    def _refuse(self, stream: int, error: PenstockError) -> None:
        self._told[stream] = Tell(stream, [Error(error.code, str(error), fatal=True), Closed("error")])

    def _fail(self, stream: int, error: PenstockError) -> None:
        if stream in self._scheduler.streams:
            self._collect()
            self._news(stream).events.append(Error(error.code, str(error), fatal=True))
            self._close(stream, "error")

    def _lost(self, stream: int, error: Error) -> None:
        """Something of an input came to nothing: its client is told, and a question that it was is not asked."""
        assert error.seq is not None
        self._scheduler.refuse(stream, error)
        self._collect()  # what happened before it is told before it
        self._news(stream).events.append(error)

    def _close(self, stream: int, reason: str) -> None:
        if stream in self._scheduler.streams:
            self._collect()
            self._scheduler.close(stream)
            self._news(stream).events.append(Closed(reason))
        self._announced.pop(stream, None)
        self._granted = {key for key in self._granted if key[0] != stream}
        self._clocks.pop(stream, None)
        self._latest.discard(stream)

    def _announce(self, message: Announce) -> None:
        stream, now_us = message.stream, time.monotonic_ns() // 1000
        waiting = self._announced.get(stream)
        if waiting is None:
            return  # the stream has ended, and encode will be told
        most = self._scheduler.limits.rows
        for index, rows, stop_us, modality, start_us in message.sizes:
            if rows > most:  # it would not fit when it is encoded
                text = f"the cache holds {most} rows for a stream: expected at most so many for one piece, got {rows}"
                self._lost(stream, Error(ContextOverflowError.code, text, message.seq))
                self._encode.put_control(Discard([(stream, message.seq, index)]))
                continue
            due_us = now_us if stop_us is None else self._due(stream, stop_us, now_us)
            event = Dropped(message.seq, modality.removesuffix("Segment").lower(), 1, start_us, stop_us, "latest")
            waiting.append(_Announced((stream, message.seq, index), rows, due_us, event))
        if stream in self._latest:
            self._drop_oldest(stream, waiting)

    def _drop_oldest(self, stream: int, waiting: deque[_Announced]) -> None:
        """Keep of a live source what is newest; while a reply speaks, of its pictures only the last."""
        gone = [waiting.popleft() for _ in range(len(waiting) - _LATEST_SEGMENTS)]
        if self._speaks(stream):
            pictures = [old for old in waiting if old.event.modality == "video"]
            gone += pictures[:-1]
            for old in pictures[:-1]:
                waiting.remove(old)
        if gone:
            self._news(stream).events.extend(old.event for old in gone)
            self._encode.put_control(Discard([old.key for old in gone]))

    def _speaks(self, stream: int) -> bool:
        """A reply runs that media has to wait for."""
        state = self._scheduler.streams[stream]
        format, reply = state.layout.format, state.reply
        return reply is not None and format.holds and not format.rests and not reply.rests

    def _due(self, stream: int, stop_us: int, now_us: int) -> int:
        """When a segment is due: when its media time comes round on the stream's clock, which its first segment sets. A
        stream that was quiet for long, or whose times begin again elsewhere, owes nothing of before."""
        clock_us, last_us = self._clocks.get(stream, (now_us - stop_us, stop_us))
        if clock_us + stop_us < now_us - _FARTHEST_US or abs(stop_us - last_us) > _FARTHEST_US:
            clock_us = now_us - stop_us
        self._clocks[stream] = clock_us, stop_us
        return min(clock_us + stop_us, now_us + _FARTHEST_US)

    def _timed(self, plan: Plan) -> None:
        """Learn what a step takes: decode rows alone, or appended rows with them."""
        ms = (time.perf_counter() - self._began) * 1000
        rows = sum(len(run) for feed in plan.feeds for run in feed.rows)
        decodes = sum(feed.draw is not None for feed in plan.feeds)
        if rows > decodes:
            self._pace.took(rows - decodes, ms)
        elif rows:
            self._pace.idle(ms)

    def _grant(self) -> None:
        """Let the encoder begin on what is due first, as far as its budget goes; a stream's own segments stay in
        order.
        """
        if self._granted:
            return
        queues = [waiting for stream, waiting in self._announced.items() if waiting and self._wants_spans(stream)]
        order = list(heapq.merge(*queues, key=lambda waiting: waiting.due_us))
        count = grant([(waiting.due_us, waiting.rows) for waiting in order], self._turns.rows)
        if count:
            keys = [self._announced[waiting.key[0]].popleft().key for waiting in order[:count]]
            self._granted = set(keys)
            self._granted_at = time.perf_counter()
            self._granted_rows = sum(waiting.rows for waiting in order[:count])
            self._encode.put_control(Grant(keys))

    def _wants_spans(self, stream: int) -> bool:
        """Whether the encoder may begin for this stream: it is not parked, and few rows of it wait. For a live camera
        whose pictures go in only where the reply rests, none may wait."""
        state = self._scheduler.streams[stream]
        rows = sum(len(span.ids) for input in state.inputs for span in input.spans if isinstance(span, Span))
        fresh = stream in self._latest and (state.layout.format.rests or self._speaks(stream))
        rests = state.reply is not None and state.reply.rests
        ahead = 1 if fresh else _AHEAD_ROWS - (state.rows - state.past)
        return not state.parked and (rests or rows < ahead)

    def _news(self, stream: int) -> Tell:
        """What the stream's client will be told next."""
        return self._told.setdefault(stream, Tell(stream, []))

    def _collect(self) -> None:
        for stream, event in self._scheduler.events():
            self._news(stream).events.append(event)

    def _publish(self) -> None:
        self._collect()
        told, self._told = self._told, {}
        for message in told.values():
            self._client.put_control(message)
