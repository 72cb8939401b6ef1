"""Carries out what a session decides on an engine: one task for each job, and one for the events of each stream.

In come an engine, a `Session` and the client's commands; out go answers, to `tell`. Knows neither sockets nor a wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import InputError, PenstockError
from ..streams.event import Closed, Event, ReplyStarted, Token, Usage
from . import commands as c
from .account import Account, brings_media, pixels_of_request
from .errors import HangUp
from .session import Session

if TYPE_CHECKING:
    from ..actors.engine import Engine
    from ..actors.stream import Stream

log = logging.getLogger("penstock.server")
_SECONDS = ("encode_seconds", "step_seconds")


class _Live:
    """A stream of the engine, and what is counted of it for the log."""

    def __init__(self, stream: Stream, label: str, account: Account) -> None:
        self.stream = stream
        self.account = account
        self.meter = account.meter.stream()
        self.label = label  # For the log: never the client's own words.
        self.reason = "client gone"
        self.usage: Usage | None = None  # what it has cost, once it has ended
        self.counts = {"inputs": 0, "bytes": 0, "replies": 0, "tokens": 0}
        self._started = time.monotonic()
        extra = {"stream": stream.id, "key": account.name, "format": stream.format}
        log.info("stream start %s id=%d format=%s", label, stream.id, stream.format, extra=extra)

    def note(self, event: Event) -> None:
        """Count an event."""
        self.meter.note(event)
        self.account.note(event)
        match event:
            case Token():
                self.counts["tokens"] += 1
            case ReplyStarted():
                self.counts["replies"] += 1
            case Closed():
                self.reason, self.usage = event.reason, event.usage

    async def settle(self) -> None:
        """Close the stream, whose client has gone, and count what it has cost. Never raises."""
        await _close(self)
        if not self.stream.closed:
            return
        try:
            async for event in self.stream:
                if isinstance(event, Closed):
                    self.account.note(event)
                    self.usage = event.usage
        except Exception:
            log.exception("no account of %s", self.label)

    def end(self) -> None:
        """Log the end."""
        costs = _costs(self.usage)
        told = self.counts | {name: costs[name] for name in _SECONDS if name in costs}
        counts = " ".join(f"{name}={count}" for name, count in told.items())
        seconds, id = time.monotonic() - self._started, self.stream.id
        self.meter.end(self.reason)
        self.account.close()
        extra = {
            "stream": id,
            "key": self.account.name,
            "reason": self.reason,
            "seconds": round(seconds, 1),
            **costs,
            **self.counts,
        }
        words = "stream end %s id=%d reason=%r seconds=%.1f %s"
        log.info(words, self.label, id, self.reason, seconds, counts, extra=extra)


def _costs(usage: Usage | None) -> dict[str, Any]:
    """What a stream has cost, as the log has it; its tokens are counted there as they are told."""
    if usage is None:
        return {}
    costs = msgspec.structs.asdict(usage)
    return costs | {name: round(costs[name], 3) for name in _SECONDS}


class SessionTasks:
    """The tasks of one session, in a task group of their owner. `tell` gets each answer, and gives the commands that
    follow from it, if there are any; it never waits, and may raise HangUp, which ends the group. When the group has
    ended, `close` has to be called.
    """

    def __init__(
        self,
        session: Session,
        engine: Engine,
        tell: Callable[[c.Answer], Iterable[c.Command] | None],
        tasks: asyncio.TaskGroup,
        label: str,
        account: Account,
        snapshots: str | None = None,
    ) -> None:
        """`snapshots`: the folder of the files that clients may name; None: they may name none."""
        self._session = session
        self._snapshots = snapshots
        self._engine = engine
        self._tell = tell
        self._tasks = tasks
        self._label = label
        self._account = account
        self._meter = account.meter
        self._live: dict[int, _Live] = {}
        self._jobs: dict[int, asyncio.Task[None]] = {}
        self._was_busy = False
        self.busy_until = asyncio.get_running_loop().time()  # When a reply last ran or a question last waited.
        self.changed = asyncio.Event()  # Set by each step.

    def take(self, command: c.Command) -> None:
        """Take a command of the client. Never waits."""
        self._session.take(command)
        self.step()

    def step(self) -> None:
        """Carry out the actions that the session has ready.

        The tasks of jobs start in the order in which they are made: an event loop calls what is scheduled with it first
        in, first out. Inputs and questions take their numbers in the first step of their calls, hence in that order.
        """
        while actions := self._session.actions():
            follow: list[c.Command] = []
            for action in actions:
                follow += self._do(action) or ()
            for command in follow:
                self._session.take(command)
        busy = self._session.busy
        if busy or self._was_busy:
            self.busy_until = asyncio.get_running_loop().time()
        self._was_busy = busy
        self.changed.set()

    def _do(self, action: c.Action) -> Iterable[c.Command] | None:
        """Carry out one action; the commands that follow from an answer."""
        match action:
            case c.Begin():
                self._start(action.job, action.channel, self._begin(action))
            case c.Carry():
                self._start(action.job, action.channel, self._carry(action))
            case c.Cancel():
                task = self._jobs.pop(action.job, None)
                if task is not None:
                    task.cancel()
            case c.StopMedia():
                live = self._live[action.channel]
                self._tasks.create_task(self._end_media(live), name=f"{live.label} end")
            case c.Shut():
                live = self._live[action.channel]
                self._tasks.create_task(_close(live), name=f"{live.label} close")
            case c.Refused():
                self._meter.errors.labels(action.code).inc()
                return self._tell(action)
            case _:
                return self._tell(action)
        return None

    async def close(self) -> None:
        """Close all streams, whatever state they are in, once the task group has ended. Never raises."""
        self._session.close()
        for live in list(self._live.values()):
            try:
                await live.settle()
            finally:
                live.end()

    # ---- jobs ----
    def _start(self, job: int, channel: int, work: Coroutine[Any, Any, None]) -> None:
        task = self._jobs[job] = self._tasks.create_task(work, name=f"{self._name(channel)} job {job}")
        task.add_done_callback(lambda _: self._jobs.pop(job, None))

    def _name(self, channel: int) -> str:
        return f"{self._label} stream={channel}"

    async def _begin(self, action: c.Begin) -> None:
        asked = None
        try:
            with self._account.opening(*await self._brought(action.command)):
                match action.command:
                    case c.OpenStream(request=request):
                        asked = self._meter.clock() if request.starts else None
                        waiting = self._meter.waiting if request.starts else None
                        with contextlib.nullcontext() if waiting is None else waiting.track_inprogress():
                            stream = await self._engine.stream(request)
                    case c.RestoreStream(name=name):
                        stream = await self._engine.restore(self._file(name))
        except Exception as error:
            self._failed(action.job, action.channel, error)
        else:
            self._opened(action.job, action.channel, stream, asked)

    async def _brought(self, command: c.OpenStream | c.RestoreStream) -> tuple[int, int]:
        """The bytes and pixels of media that come with a request."""
        if not isinstance(command, c.OpenStream) or not brings_media(command.request):
            return 0, 0
        if not self._account.counts_pixels:
            return command.size, 0
        return command.size, await asyncio.to_thread(pixels_of_request, command.request)

    async def _carry(self, action: c.Carry) -> None:
        live, command = self._live[action.channel], action.command
        stream, seq, reply, asked = live.stream, None, None, None
        try:
            match command:
                case c.AppendItem():
                    self._account.append(command.item, command.size)
                    seq = await stream.append(command.item)
                    live.counts["inputs"] += 1
                    live.counts["bytes"] += command.size
                case c.AskQuestion():
                    names = ("wait_ms", "hold", "ignore_failed", "lookback")
                    ways = {name: getattr(command, name) for name in names}
                    self._account.ask()
                    asked = self._meter.clock()
                    with self._meter.waiting.track_inprogress():
                        answer = await stream.ask(command.question, command.params, **ways)
                    seq, reply = answer.seq, answer.id
                    live.meter.asked(reply, asked)
                case c.InterruptReply():
                    await stream.interrupt(command.at)
                case c.Listen():
                    await stream.listen(command.turn_detection)
                case c.EndMedia():
                    await stream.end()
                case c.CloseStream():
                    await stream.close()
                case c.SnapshotStream():
                    await stream.snapshot(self._file(command.name))
                case c.ForkStream():
                    asked = None if command.again is None else self._meter.clock()
                    back = {"back_to": command.back_to, "back_to_us": command.back_to_us}
                    with self._account.opening():
                        copy = await stream.fork(command.again, **back)
        except Exception as error:
            self._failed(action.job, action.channel, error)
            return
        if isinstance(command, c.ForkStream):
            self._opened(action.job, action.copy, copy, asked)
        else:
            self._session.done(action.job, seq, reply)
            self.step()

    def _opened(self, job: int, channel: int, stream: Stream, asked: float | None = None) -> None:
        live = self._live[channel] = _Live(stream, self._name(channel), self._account)
        if asked is not None:
            live.meter.prompted(asked)
        facts = c.StreamFacts(id=stream.id, format=stream.format, why=stream.why, trained=stream.trained)
        self._session.opened(job, facts)
        self.step()
        self._tasks.create_task(self._pump(channel, live), name=f"{live.label} events")

    def _failed(self, job: int, channel: int, error: Exception) -> None:
        self._log(self._name(channel), error)
        self._session.failed(job, error)
        self.step()

    def _file(self, name: str) -> Path:
        if self._snapshots is None:
            raise InputError("snapshot: expected a server that keeps snapshots (--snapshots FOLDER), got one without")
        return Path(self._snapshots) / name

    # ---- streams ----
    async def _pump(self, channel: int, live: _Live) -> None:
        """Pass on all events of a stream until it has ended, then close it."""
        broken: Exception | None = None
        try:
            async for event in live.stream:
                live.note(event)
                self._session.event(channel, event)
                self.step()
        except HangUp:
            raise
        except Exception as error:
            self._log(live.label, error)
            broken, live.reason = error, "error"
        del self._live[channel]
        live.end()
        self._session.ended(channel, broken)
        self.step()
        await _close(live)

    async def _end_media(self, live: _Live) -> None:
        try:
            await live.stream.end()
        except PenstockError:
            pass  # It has ended meanwhile.
        except Exception as error:
            self._log(live.label, error)

    def _log(self, label: str, error: Exception) -> None:
        if not isinstance(error, PenstockError):
            log.error("internal error %s", label, exc_info=error)


async def _close(live: _Live) -> None:
    try:
        await live.stream.close()
    except Exception:
        log.exception("close failed %s", live.label)
