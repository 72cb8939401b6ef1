"""The schedule actor: decides each step and what is encoded next; the one that changes streams' lives and hands out
pages.

While a step runs, what arrives waits; it takes effect at the step boundary.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ..engine.command import (
    AppendRows,
    Close,
    Command,
    Due,
    Fork,
    GuessCost,
    Open,
    Refuse,
    Resolved,
    Spans,
    Thaw,
    Unfreeze,
    Yield,
)
from ..engine.conversation.rules import Life
from ..engine.frozen import Snapshot
from ..engine.plan import Plan, Result
from ..engine.scheduling.admission import Admission
from ..engine.scheduling.granting import Announced, Granting
from ..engine.scheduling.pace import GuessPace, Pace, StepPace
from ..engine.scheduling.scheduler import Scheduler
from ..engine.scheduling.usage import Usages
from ..errors import ContextOverflowError, NotFiniteError, OutOfMemoryError, PenstockError
from ..streams.event import (
    Closed,
    Dropped,
    Error,
    Event,
    ReplyStarted,
    Resting,
    SpeechStarted,
    SpeechStopped,
    Usage,
)
from . import clock
from .actor import Actor
from .copies import Copies
from .mailbox import Mailbox, MailboxClosed
from .messages import (
    Announce,
    Broken,
    Discard,
    EncodeMessage,
    Failed,
    GenerateMessage,
    Grant,
    Notice,
    Rouse,
    ScheduleMessage,
    Spent,
    Tell,
    Transcribe,
)
from .words import Words

log = logging.getLogger("penstock.actors")


class EngineBroken(Exception):
    """A step failed; nothing can be said about the cache any more."""


class Schedule(Actor[ScheduleMessage]):
    """Drives the scheduler: one step in flight at most."""

    name = "schedule"

    def __init__(
        self,
        scheduler: Scheduler,
        steps: StepPace,
        turns: Pace,
        admission: Admission,
        mailbox: Mailbox[ScheduleMessage],
        encode: Mailbox[EncodeMessage],
        generate: Mailbox[GenerateMessage],
        tell: Callable[[Tell], None],
        words: Words,
        copies: Copies,
    ) -> None:
        self._scheduler = scheduler
        self._words = words
        self._copies = copies
        self._pace = steps  # of rows that a step appends
        self._guess_pace = GuessPace()
        self._granting = Granting(scheduler.streams, turns)
        self._admission = admission
        self._usages = Usages()
        self._stepped_ms = 0.0  # what steps took since the encoder began with what it works on
        self._plan: Plan | None = None  # the step in flight
        self._later: deque[ScheduleMessage] = deque()  # what came while it ran
        self._told: dict[int, Tell] = {}
        self._timer: asyncio.TimerHandle | None = None  # until a reply that waits goes on
        self.steps = 0
        self.mailbox = mailbox
        self._encode = encode
        self._generate = generate
        self._tell = tell  # hands news to the client of a stream

    async def handle(self, message: ScheduleMessage) -> None:
        """One message; when no more wait, the next step."""
        if self._plan is not None and not isinstance(message, Result | Broken):
            if isinstance(message, Notice) and isinstance(message.event, SpeechStarted | SpeechStopped):
                self._tell(Tell(message.stream, [message.event]))  # now: the end of the step may be an interrupt's
            else:
                self._later.append(message)
            return
        self._act(message)
        while self._plan is None and self._later:
            self._act(self._later.popleft())
        while self._plan is None and (waiting := self.mailbox.get_now()) is not None:
            self._act(waiting)
        if self._plan is None:
            self._collect()
            self._copies.take(self._scheduler.frozen())
            self._grant()
            self._plan = self._next()
            self._words.find(self._scheduler.unspelled())
            self._publish()
            if self._plan is not None:
                self.steps += 1
                self._generate.put_control(self._plan)

    def statistics(self) -> dict[str, Any]:
        return {
            **self._scheduler.statistics(),
            "steps": self.steps,
            "segments_waiting": self._granting.waiting,
            "stepping": int(self._plan is not None),
            "live_load": self._admission.load(self._granting.cameras(clock.now_us())),
            **self._granting.times.statistics(),
            **self._usages.statistics(),
        }

    def check(self) -> None:
        """The conservation law of pages; between steps."""
        self._scheduler.check()

    def _act(self, message: ScheduleMessage) -> None:
        """Do what a message says. What goes wrong in one stream's own message ends that stream, not the engine."""
        if isinstance(message, Result | Broken | Rouse | Spent):
            self._perform(message)
            return
        try:
            self._perform(message)
        except Exception as error:
            assert not isinstance(message, AppendRows | GuessCost | Yield | Due | Unfreeze), "no actor sends this"
            stream = message.twin if isinstance(message, Fork) else message.stream
            log.exception("%s of stream %d failed", type(message).__name__, stream)
            failure = PenstockError(f"{type(message).__name__} failed: {type(error).__name__}: {error}")
            if stream in self._scheduler.streams:
                self._fail(stream, failure)
            elif isinstance(message, Open | Fork | Thaw):
                self._refuse(stream, failure)

    def _perform(self, message: ScheduleMessage) -> None:
        scheduler = self._scheduler
        match message:
            case Result():
                assert self._plan is not None
                plan, self._plan = self._plan, None
                self._timed(plan, message.ms)
                self._usages.stepped(plan, message.ms / 1000, scheduler.streams)
                faults = scheduler.commit(plan, message)
                self._usages.guessed(scheduler.guessing.stayed)
                for stream, error in faults:
                    self._fail(stream, error)
                for stream in message.failed:
                    self._fail(
                        stream, OutOfMemoryError("memory ran out in a step; the stream that asked for most ends")
                    )
                for stream in message.poisoned:
                    self._fail(stream, NotFiniteError("the model gave values that are not finite: the stream ends"))
            case Broken(reason):
                raise EngineBroken(reason)
            case Rouse():
                pass  # the next step is planned after it
            case Spent(shares):
                for stream, seconds in shares:
                    self._usages.encoded(stream, seconds)
            case Open() | Fork() | Thaw():
                self._begin(message)
            case Snapshot(stream, twin):
                scheduler.apply(Unfreeze(twin))
                self._news(stream).snapshots.append(message)
            case Close(stream, reason):
                self._close(stream, reason)
            case Transcribe(stream, ticket):
                if stream in scheduler.streams:
                    self._news(stream).transcripts.append((ticket, scheduler.transcript(stream)))
            case Announce():
                self._announce(message)
            case Failed(stream, seq, index, code, text):
                self._granting.failed((stream, seq, index))
                self._lost(stream, Error(code, text, seq))
            case Notice(stream, event):
                if isinstance(event, Error) and event.seq is not None:
                    self._lost(stream, event)
                else:
                    self._collect()
                    self._happened(stream, event)
            case command:
                self._follow(command)  # first: what the encoder took is not what laying its rows takes
                scheduler.apply(command)

    def _follow(self, command: Command) -> None:
        """What a command means for the encoder and for the client."""
        match command:
            case Spans(stream, spans):
                keys = {(stream, span.seq, span.index) for span in spans}
                took = self._granting.encoded(keys, time.perf_counter())
                if took is not None:
                    self._admission.encoded(took[0], took[1] - self._stepped_ms)
            case Resolved(stream, seq):
                self._news(stream).resolved.append(seq)

    def _begin(self, message: Open | Fork | Thaw) -> None:
        """A stream begins, by itself or as a twin; its client is told of the reply that a twin goes on with."""
        id = message.twin if isinstance(message, Fork) else message.stream
        try:
            if not isinstance(message, Fork):
                request = message.request if isinstance(message, Open) else message.frozen.request
                self._admission.check(request, self._granting.cameras(clock.now_us()))
            self._scheduler.apply(message)
        except Exception as error:
            if isinstance(message, Thaw):
                self._scheduler.turn_away(message)
            if not isinstance(error, PenstockError):
                raise
            self._refuse(id, error)
            return
        state = self._scheduler.streams[id]
        told = Tell(id, [], (state.layout.format.name, state.why))
        reply = state.reply
        self._usages.begin(id, isinstance(message, Open))
        if isinstance(message, Fork):
            self._granting.fork(message.stream, id)
        else:
            self._granting.begin(id)
            self._admission.begin(id, state.request)
        if reply is not None and not (isinstance(message, Fork) and message.again is not None):
            events: list[Event] = [ReplyStarted(reply.id, reply.seq, state.stays_open(reply.params))]
            if reply.life is Life.RESTING:
                events.append(Resting(reply.id, len(reply.ids)))
            told = msgspec.structs.replace(told, events=events, running=(reply.id, reply.seq, len(reply.ids)))
        self._told[id] = told

    def _refuse(self, stream: int, error: PenstockError) -> None:
        self._told[stream] = Tell(stream, [Error(error.code, str(error), fatal=True), Closed("error", Usage())])

    def _fail(self, stream: int, error: PenstockError) -> None:
        if stream in self._scheduler.streams:
            self._collect()
            self._news(stream).events.append(Error(error.code, str(error), fatal=True))
            self._close(stream, "error")

    def _lost(self, stream: int, error: Error) -> None:
        """Something of an input came to nothing: its client is told, and a question that it was is not asked."""
        assert error.seq is not None
        self._scheduler.apply(Refuse(stream, error))
        self._collect()  # what happened before it is sent before it
        self._news(stream).events.append(error)

    def _close(self, stream: int, reason: str) -> None:
        if stream in self._scheduler.streams:
            self._collect()
            self._scheduler.apply(Close(stream, reason))
            self._news(stream).events.append(Closed(reason, self._usages.end(stream)))
        self._granting.forget(stream)
        self._admission.forget(stream)

    def _announce(self, message: Announce) -> None:
        stream = message.stream
        if stream not in self._scheduler.streams:
            return  # it has ended, and encode will be told
        most = self._scheduler.limits.rows
        fitting: list[Announced] = []
        for index, rows, stop_us, modality, start_us in message.sizes:
            key = stream, message.seq, index
            if rows <= most:
                name = modality.removesuffix("Segment").lower()
                event = Dropped(message.seq, name, 1, start_us, stop_us, "latest")
                self._admission.piece(name, rows)
                fitting.append(Announced(key, rows, stop_us, event, message.arrived_us, message.clip))
                continue
            text = f"the cache holds {most} rows for a stream: expected at most so many for one piece, got {rows}"
            self._lost(stream, Error(ContextOverflowError.code, text, message.seq))
            self._encode.put_control(Discard([key]))
        gone = self._granting.announce(stream, fitting, clock.now_us())
        if gone:
            for old in gone:
                self._happened(stream, old.event)
            self._encode.put_control(Discard([old.key for old in gone], passes=True))

    def _grant(self) -> None:
        keys = self._granting.grant(time.perf_counter())
        if keys:
            self._stepped_ms = 0.0
            self._encode.put_control(Grant(keys))

    def _next(self) -> Plan | None:
        """The next step, with the rows and the patience that the media of live streams leaves it. Where that will be
        overdue, a reply that can wait for it does."""
        now_us = clock.now_us()
        demand, pressing = self._granting.demand(now_us), self._granting.pressing(time.perf_counter(), now_us)
        self._scheduler.apply(AppendRows(self._pace.appends(*(demand or (0, None)))))
        if (cost := self._guess_pace.cost) is not None:
            self._scheduler.apply(GuessCost(cost))
        waiting = {stream: until_us for stream, until_us in pressing.items() if until_us > now_us}
        self._scheduler.apply(Yield(sorted(waiting)))
        self._scheduler.apply(Due(self._granting.due_first(now_us)))
        plan = self._scheduler.plan()
        self._rouse_in(None if plan is not None or not waiting else (min(waiting.values()) - now_us) / 1e6)
        if plan is None or not any(feed.draw for feed in plan.feeds):
            return plan
        appended, _ = _rows(plan)
        patience_ms = self._pace.patience_ms(appended, live=demand is not None and not pressing)
        return msgspec.structs.replace(plan, patience_ms=patience_ms)

    def _rouse_in(self, seconds: float | None) -> None:
        """Plan again after this time if nothing comes before; None: there is no need to."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._rouse)

    def _rouse(self) -> None:
        with contextlib.suppress(MailboxClosed):
            self.mailbox.put_control(Rouse())

    def _timed(self, plan: Plan, ms: float) -> None:
        """Learn what a step takes: decode rows alone, or appended rows with them."""
        appended, decodes = _rows(plan)
        self._stepped_ms += ms
        if appended or decodes:
            self._admission.stepped(appended, ms)
        if appended:
            self._pace.took(appended, ms)
        elif decodes:
            guessed = [len(feed.guesses.draws) for feed in plan.feeds if feed.guesses is not None]
            if not guessed:
                self._pace.idle(ms)
            if not guessed or any(guessed):  # else the draft model has only read
                self._guess_pace.took(decodes, sum(guessed), ms)

    def _news(self, stream: int) -> Tell:
        """What the stream's client will be told next."""
        return self._told.setdefault(stream, Tell(stream, []))

    def _happened(self, stream: int, event: Event) -> None:
        """The stream's client will be told of this, with what was measured."""
        self._usages.note(stream, event)
        self._news(stream).events.append(self._granting.times.tell(stream, event, clock.now_us()))

    def _collect(self) -> None:
        for stream, event in self._scheduler.events():
            self._happened(stream, event)

    def _publish(self) -> None:
        told, self._told = self._told, {}
        for message in told.values():
            self._tell(message)


def _rows(plan: Plan) -> tuple[int, int]:
    """How many rows a plan appends, and how many it decodes."""
    decodes = sum(feed.draw is not None for feed in plan.feeds)
    return sum(len(run) for feed in plan.feeds for run in feed.rows) - decodes, decodes
