"""One stream of one connection: its commands in order, its events out, its life.

In come typed commands (`offer`, which never waits); out go answers and events into the connection's outbox. Commands of
one stream are carried out one after the other by the stream's own worker, so that an append that waits holds up no
other stream; a question only takes its place there, and waits for its reply on its own. Knows neither sockets nor JSON.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from ..errors import PenstockError, StreamClosedError, code_of
from ..streams.event import Closed, Error, Event, ReplyDone, ReplyStarted, Token
from ..streams.request import SamplingParams
from . import wire
from .errors import DrainingError, MessageError, ServerLimitError
from .outbox import HangUp, Outbox

if TYPE_CHECKING:
    from ..actors.stream import Stream

log = logging.getLogger("penstock.server")

# Commands of one stream that are received but not yet carried out; their bytes are bounded by the configuration.
WAITING_COMMANDS = 1024

Order = wire.Input | wire.Ask | wire.Interrupt | wire.End | wire.Close
Opener = Callable[[], Awaitable["Stream"]]


class ForkOrder:
    """A fork on its way from the channel of the source to the channel of the copy."""

    def __init__(self, stream: str, ref: str | None, again: SamplingParams | None) -> None:
        self.stream = stream  # Name of the source.
        self.ref = ref
        self.again = again
        self.copy: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()


def error_frame(
    error: BaseException, stream: str | None = None, ref: str | None = None, seq: int | None = None, fatal: bool = False
) -> bytes:
    """The answer that tells a client of `error`. Other than a PenstockError it is "internal", without its words."""
    known = isinstance(error, PenstockError)
    path = error.path if isinstance(error, MessageError) else None
    message = str(error) if known else "internal error; the server's log says more"
    answer = wire.WireError(
        stream=stream, code=code_of(error), message=message, path=path, seq=seq, fatal=fatal, ref=ref
    )
    return wire.encode_answer(answer)


class _Waiting(NamedTuple):
    """A command that waits, with the size of its message."""

    order: Order | ForkOrder
    bytes: int


class _Lane:
    """Commands that wait for one worker."""

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self._filled = asyncio.Event()

    def put(self, waiting: _Waiting, place: int | None = None) -> None:
        """Let a command wait: at the end, or as number `place` of those that do."""
        self.waiting.insert(len(self.waiting) if place is None else place, waiting)
        self._filled.set()

    async def next(self) -> _Waiting:
        while not self.waiting:
            self._filled.clear()
            await self._filled.wait()
        return self.waiting.popleft()


class Channel:
    """A stream under its client's name. `run` is its whole life; `offer` gives it a command."""

    def __init__(self, name: str, label: str, outbox: Outbox, waiting_bytes: int, changed: Callable[[], None]) -> None:
        self.name = name
        self.label = label  # For the log: never the client's own words.
        self.stream: Stream | None = None
        self.draining = False
        self._media_over = False  # No more media will come.
        self._outbox = outbox
        self._limit_bytes = waiting_bytes
        self._changed = changed  # Called when `busy` may have changed.
        self._ordered = _Lane()
        self._urgent = _Lane()  # What overtakes.
        self._waiting_bytes = 0
        self._questions = 0  # Those whose reply has not begun.
        self._awaits = False  # The reply to the request's own prompt has not begun.
        self._running: set[asyncio.Task[None]] = set()  # Questions that wait.
        self._replies: set[int] = set()  # Replies that are running.
        self._counts = {"inputs": 0, "bytes": 0, "replies": 0, "tokens": 0}

    @property
    def busy(self) -> bool:
        """Whether a reply runs or a question waits."""
        return bool(self._replies) or self._questions > 0 or self._awaits

    # ---- from the connection's receive task: nothing here waits ----
    def offer(self, order: Order | ForkOrder, size: int) -> None:
        """Take a command of `size` bytes. ServerLimitError or DrainingError where it is refused."""
        waiting = len(self._ordered.waiting) + len(self._urgent.waiting) + len(self._running)
        if waiting >= WAITING_COMMANDS:
            raise ServerLimitError(f"stream {self.name!r}: at most {WAITING_COMMANDS} messages may wait, got one more")
        if isinstance(order, wire.Ask) and self.draining:
            raise DrainingError("the server is going down: expected no new questions, got one")
        waiting_bytes = self._waiting_bytes + size
        if waiting_bytes > self._limit_bytes:
            raise ServerLimitError(
                f"stream {self.name!r}: at most {self._limit_bytes} bytes may wait, got {waiting_bytes}"
            )
        self._waiting_bytes = waiting_bytes
        self._questions += isinstance(order, wire.Ask)
        if isinstance(order, wire.Interrupt) and (place := self._question_to_cut()) is not None:
            self._ordered.put(_Waiting(order, size), place + 1)
        else:
            lane = self._urgent if isinstance(order, wire.Interrupt | wire.Close) else self._ordered
            lane.put(_Waiting(order, size))

    def _question_to_cut(self) -> int | None:
        """The place of the question that an interrupt means which comes now: the first of those that still wait here,
        where neither a reply runs nor a question waits for one; else None."""
        if self._replies or self._running or self._awaits:
            return None
        orders = (waiting.order for waiting in self._ordered.waiting)
        return next((place for place, order in enumerate(orders) if isinstance(order, wire.Ask)), None)

    # ---- the channel's own tasks ----
    async def run(self, opening: wire.Open | ForkOrder, opener: Opener) -> None:
        """Open the stream, carry out its commands and pass on its events until it has ended.

        Raises HangUp where the client does not read. Cancelled, it leaves the stream to `close`.
        """
        try:
            stream = self.stream = await opener()
        except HangUp:
            raise
        except Exception as error:
            self._failed(error)
            self._outbox.put(error_frame(error, self.name, opening.ref, fatal=True))
            self._refuse_rest("was never opened")
            return
        self._awaits = opening.again is not None if isinstance(opening, ForkOrder) else opening.starts
        self._outbox.put(self._opened(opening, stream))
        started = time.monotonic()
        log.info("stream start %s id=%d format=%s", self.label, stream.id, stream.format)
        reason = "client gone"
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [
                    tasks.create_task(self._work(lane, tasks), name=f"{self.label} {name} worker")
                    for name, lane in (("ordered", self._ordered), ("urgent", self._urgent))
                ]
                if self._media_over:
                    tasks.create_task(self.no_more_media(), name=f"{self.label} end")
                reason = await self._pump(stream)
                for task in (*workers, *self._running):
                    task.cancel()
        finally:
            counts = " ".join(f"{name}={count}" for name, count in self._counts.items())
            seconds = time.monotonic() - started
            log.info("stream end %s id=%d reason=%r seconds=%.1f %s", self.label, stream.id, reason, seconds, counts)
        self._refuse_rest("has ended")

    async def no_more_media(self) -> None:
        """Let a reply that rests end, since nothing will come that it could go on with; where the stream is not open
        yet, once it is. Never raises.
        """
        self._media_over = True
        if self.stream is None:
            return
        try:
            await self.stream.end()
        except PenstockError:
            pass  # It has ended meanwhile.
        except Exception as error:
            self._failed(error)

    async def close(self) -> None:
        """End the stream, whatever state it is in. Never raises."""
        if self.stream is None:
            return
        try:
            await self.stream.close()
        except Exception:
            log.exception("close failed %s", self.label)

    def _opened(self, opening: wire.Open | ForkOrder, stream: Stream) -> bytes:
        facts = {"id": stream.id, "format": stream.format, "why": stream.why, "trained": stream.trained}
        if isinstance(opening, ForkOrder):
            answer = wire.Forked(stream=self.name, source=opening.stream, ref=opening.ref, **facts)
        else:
            answer = wire.Opened(stream=self.name, ref=opening.ref, **facts)
        return wire.encode_answer(answer)

    async def _pump(self, stream: Stream) -> str:
        """Pass on all events; returns why the stream closed. A failing stream is told as a fatal error."""
        reason = "ended"
        try:
            async for event in stream:
                self._outbox.put(wire.encode_event(self.name, event))
                self._note(event)
                if isinstance(event, Closed):
                    reason = event.reason
        except HangUp:
            raise
        except Exception as error:
            self._failed(error)
            self._outbox.put(error_frame(error, self.name, fatal=True))
            return "error"
        return reason

    def _note(self, event: Event) -> None:
        match event:
            case Token():
                self._counts["tokens"] += 1
            case ReplyStarted():
                self._awaits = False
                self._replies.add(event.reply)
                self._counts["replies"] += 1
            case ReplyDone():
                self._replies.discard(event.reply)
                self._changed()
            case Error(seq=1) if self._awaits:
                self._awaits = False
                self._changed()

    async def _work(self, lane: _Lane, tasks: asyncio.TaskGroup) -> None:
        while True:
            waiting = await lane.next()
            if isinstance(waiting.order, wire.Ask):  # It waits for its reply to begin, and media must go on meanwhile.
                task = tasks.create_task(self._ask(waiting), name=f"{self.label} ask")
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                await asyncio.sleep(0)  # The question takes its number in its first step: before what comes behind it.
            else:
                await self._perform(waiting.order)
                self._waiting_bytes -= waiting.bytes

    async def _ask(self, ask: _Waiting) -> None:
        try:
            await self._perform(ask.order)
        finally:
            self._questions -= 1
            self._waiting_bytes -= ask.bytes
            self._changed()

    async def _perform(self, order: Order | ForkOrder) -> None:
        """Carry out a command and answer it."""
        assert self.stream is not None
        try:
            accepted = await self._carry_out(self.stream, order)
        except Exception as error:
            self._failed(error)
            self._outbox.put(error_frame(error, self.name, order.ref))
            return
        if accepted is not None and (order.ref is not None or accepted.reply is not None):
            self._outbox.put(wire.encode_answer(accepted))

    async def _carry_out(self, stream: Stream, order: Order | ForkOrder) -> wire.Accepted | None:
        seq = reply = None
        match order:
            case wire.Input():
                seq = await stream.append(order.item)
                self._counts["inputs"] += 1
                self._counts["bytes"] += order.bytes
            case wire.Ask():
                params = None if order.params is None else wire.plain_params(order.params)
                ways = {"wait_ms": order.wait_ms, "hold": order.hold, "ignore_failed": order.ignore_failed}
                answer = await stream.ask(order.question, params, **ways)
                seq, reply = answer.seq, answer.id
            case wire.Interrupt():
                await stream.interrupt(order.at)
            case wire.End():
                await stream.end()
            case wire.Close():
                await stream.close()
                return None  # Answered by the `closed` event.
            case ForkOrder():
                await self._fork(stream, order)
                return None
        return wire.Accepted(stream=self.name, seq=seq, reply=reply, ref=order.ref)

    async def _fork(self, stream: Stream, order: ForkOrder) -> None:
        """Hand a copy to the channel that waits for it, which answers the client."""
        try:
            copy = await stream.fork(order.again)
        except BaseException as error:
            if not order.copy.done():
                cancelled = isinstance(error, asyncio.CancelledError)  # the source has ended meanwhile
                order.copy.set_exception(self._gone("has ended") if cancelled else error)
            if not isinstance(error, Exception):
                raise
            return
        if order.copy.done():  # The channel of the copy has gone meanwhile.
            await copy.close()
        else:
            order.copy.set_result(copy)

    def _gone(self, what: str) -> StreamClosedError:
        return StreamClosedError(f"stream {self.name!r} {what}")

    def _refuse_rest(self, what: str) -> None:
        error = self._gone(what)
        for order, _ in (*self._urgent.waiting, *self._ordered.waiting):
            if isinstance(order, ForkOrder):
                if not order.copy.done():
                    order.copy.set_exception(error)
            else:
                self._outbox.put(error_frame(error, self.name, order.ref))

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, PenstockError):
            log.error("internal error %s", self.label, exc_info=error)
