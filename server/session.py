"""One client's session: which of its commands are taken, in which order they are carried out, and how each is answered.

Sans I/O: it knows no socket, no wire, no clock and no event loop, and does nothing by itself. In come the client's
commands (`take`) and reports of what has become of the work (`opened`, `done`, `failed`, `event`, `ended`). Out go
actions (`actions`), to be carried out in their order: answers for the client, and work for whoever holds the engine.

**Order.** The commands of one stream are carried out in the order in which they came, each when the one before it is
done. A question only takes its place: what comes after it does not wait for its reply. `InterruptReply` and
`CloseStream` overtake all that waits, with one exception: where no reply runs and the first question still waits, an
interrupt is for this question and is carried out right after it. Streams never wait for each other.

**Bounds.** A session has at most `max_streams` streams. Of one stream at most `WAITING_COMMANDS` commands may wait, and
their messages may have at most `waiting_bytes` bytes; `credit` says how many are left. What is over a bound is refused,
and nothing else changes.

**Answers.** Each command gets one answer with its `ref`: `StreamOpened`, `CarriedOut` or `Refused`. What refuses a new
stream, also a copy, names that stream; what it would have been a copy of goes on. A `CloseStream` is answered by the
event `Closed`; so is what was being carried out when a stream ended. After `close` there are no more answers.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any, NamedTuple

from ..errors import PenstockError, StreamClosedError, code_of
from ..streams.event import Error, Event, ReplyDone, ReplyStarted
from . import commands as c
from .errors import DrainingError, MessageError, ServerLimitError, StreamNameError, UnknownStreamError

# Commands of one stream that are taken but not yet carried out.
WAITING_COMMANDS = 1024
# Names of ended streams that are remembered, for a better error.
ENDED_NAMES = 256


def refusal(error: BaseException, stream: str | None = None, ref: Any = None, fatal: bool = False) -> c.Refused:
    """How a client learns of `error`. Any error but a PenstockError is "internal", and its words stay in the log."""
    message = str(error) if isinstance(error, PenstockError) else "internal error; the server's log says more"
    path = error.path if isinstance(error, MessageError) else None
    return c.Refused(stream=stream, ref=ref, code=code_of(error), message=message, path=path, fatal=fatal)


Opening = c.OpenStream | c.RestoreStream | c.ForkStream


def _awaits(opening: Opening) -> bool:
    """Whether a reply begins by itself: to the request's own prompt."""
    match opening:
        case c.OpenStream():
            return opening.request.starts
        case c.ForkStream():
            return opening.again is not None
        case c.RestoreStream():
            return False


class _Waiting(NamedTuple):
    """A command that waits; `copy` is the channel of the stream that a fork will make."""

    command: c.Carried
    copy: _Channel | None = None


class _Job(NamedTuple):
    """What is being carried out, and for which channel."""

    channel: _Channel
    command: c.Command
    copy: _Channel | None = None


class _Channel:
    """One stream under its client's name, from the command that opens it until it has ended."""

    def __init__(self, number: int, opening: Opening) -> None:
        self.number = number
        self.name = opening.copy if isinstance(opening, c.ForkStream) else opening.stream
        self.opening = opening
        self.is_open = False
        self.ordered: deque[_Waiting] = deque()
        self.urgent: deque[_Waiting] = deque()  # What overtakes; waits only until the stream is open.
        self.at_work: int | None = None  # The job that the ordered commands wait for.
        self.jobs: dict[int, c.Command] = {}
        self.bytes = 0  # Of the messages whose commands wait or are being carried out.
        self.replies: set[int] = set()  # Those that run.
        self.questions = 0  # Those that wait or are being carried out.
        self.asking = 0  # Those that are being carried out.
        # Whether the reply to the request's own prompt has yet to begin.
        self.awaits = _awaits(opening)

    @property
    def busy(self) -> bool:
        """Whether a reply runs or a question waits for one."""
        return bool(self.replies) or self.awaits or self.questions > 0

    @property
    def waiting(self) -> int:
        """How many commands count as waiting: all but the one that the ordered commands wait for."""
        return len(self.ordered) + len(self.urgent) + len(self.jobs) - (self.at_work is not None)

    def queue(self, waiting: _Waiting) -> None:
        """Let a command wait in its place."""
        self.bytes += waiting.command.size
        self.questions += isinstance(waiting.command, c.AskQuestion)
        overtakes = isinstance(waiting.command, c.InterruptReply | c.CloseStream)
        meant = self._question_to_cut() if isinstance(waiting.command, c.InterruptReply) else None
        if meant is not None:
            self.ordered.insert(meant + 1, waiting)
        else:
            (self.urgent if overtakes else self.ordered).append(waiting)

    def _question_to_cut(self) -> int | None:
        """The place of the waiting question that an interrupt means which comes now, if it means one."""
        if self.replies or self.awaits or self.asking:
            return None
        places = (place for place, waiting in enumerate(self.ordered) if isinstance(waiting.command, c.AskQuestion))
        return next(places, None)


class Session:
    """The session of one client. No method waits or raises; each may add to `actions`."""

    def __init__(self, max_streams: int, waiting_bytes: int) -> None:
        self._max_streams = max_streams
        self._waiting_bytes = waiting_bytes
        self._draining = False
        self._closed = False
        self._names: dict[str, _Channel] = {}
        self._channels: dict[int, _Channel] = {}  # The same by number.
        self._ended: dict[str, None] = {}  # Names of streams that have ended, oldest first.
        self._jobs: dict[int, _Job] = {}
        self._channel_numbers = itertools.count(1)
        self._job_numbers = itertools.count(1)
        self._actions: list[c.Action] = []

    @property
    def streams(self) -> int:
        """How many streams are open or being opened."""
        return len(self._names)

    @property
    def busy(self) -> bool:
        """Whether a reply runs or a question waits for one, in any stream."""
        return any(channel.busy for channel in self._names.values())

    def credit(self, stream: str) -> int:
        """How many bytes of messages this stream takes now; 0 where there is no such stream."""
        channel = self._names.get(stream)
        return 0 if channel is None else self._waiting_bytes - channel.bytes

    def actions(self) -> list[c.Action]:
        """The actions since the last call, to be carried out in this order."""
        actions, self._actions = self._actions, []
        return actions

    # ---- from the client ----
    def take(self, command: c.Command) -> None:
        """Take a command of the client, or refuse it."""
        if self._closed:
            return
        try:
            match command:
                case c.OpenStream() | c.RestoreStream():
                    self._check_new(command.stream)
                    channel = self._new(command)
                    channel.at_work = job = self._job(channel, command)
                    self._actions.append(c.Begin(job=job, channel=channel.number, command=command))
                case c.ForkStream():
                    source = self._channel(command.stream)
                    self._check_new(command.copy)
                    self._check_room(source, command)
                    self._queue(source, _Waiting(command, self._new(command)))
                case _:
                    self._offer(self._channel(command.stream), command)
        except PenstockError as error:
            name = command.copy if isinstance(command, c.ForkStream) else command.stream
            begins = isinstance(command, Opening)
            # A stream that has this name already goes on.
            self._actions.append(refusal(error, name, command.ref, fatal=begins and name not in self._names))

    def drain(self) -> None:
        """Take no more streams and questions; let replies that are held open end, since no more media will come."""
        self._draining = True
        self._actions.append(c.GoingDown())
        self._actions += [c.StopMedia(channel=channel.number) for channel in self._names.values() if channel.is_open]

    def finish(self) -> None:
        """End all streams, and go on until their last events have come. What is still being opened is refused."""
        for channel in list(self._names.values()):
            if channel.is_open:
                self._actions.append(c.Shut(channel=channel.number))
            elif self._has(channel):
                self._never(channel, DrainingError("the server is going down: expected no new streams, got one"))

    def close(self) -> None:
        """The client has gone: cancel and close all, answer nothing any more."""
        self._closed = True
        self._actions = [c.Cancel(job=job) for job in self._jobs]
        self._actions += [c.Shut(channel=channel.number) for channel in self._names.values() if channel.is_open]
        self._jobs.clear()
        self._names.clear()
        self._channels.clear()

    # ---- from whoever holds the engine ----
    def opened(self, job: int, facts: c.StreamFacts) -> None:
        """A job has opened or forked its stream. One that nobody wants any more is closed."""
        found = self._jobs.pop(job, None)
        if found is None:
            return
        channel = found.copy or found.channel
        if self._has(channel):
            channel.is_open = True
            source = None if found.copy is None else found.channel.name
            opened = c.StreamOpened(stream=channel.name, ref=channel.opening.ref, facts=facts, source=source)
            self._actions.append(opened)
            if self._draining:
                self._actions.append(c.StopMedia(channel=channel.number))
        else:
            self._actions.append(c.Shut(channel=channel.number))
        self._leave(job, found)
        self._go_on(channel)

    def done(self, job: int, seq: int | None = None, reply: int | None = None) -> None:
        """A job has been carried out."""
        found = self._jobs.pop(job, None)
        if found is None:
            return
        if not isinstance(found.command, c.CloseStream):
            self._actions.append(c.CarriedOut(stream=found.channel.name, ref=found.command.ref, seq=seq, reply=reply))
        self._leave(job, found)

    def failed(self, job: int, error: BaseException) -> None:
        """A job has come to nothing."""
        found = self._jobs.pop(job, None)
        if found is None:
            return
        if isinstance(found.command, c.OpenStream | c.RestoreStream):
            found.channel.jobs.pop(job)
            self._never(found.channel, error)
            return
        if found.copy is None:
            self._actions.append(refusal(error, found.channel.name, found.command.ref))
        elif self._has(found.copy):
            self._never(found.copy, error)
        self._leave(job, found)

    def event(self, channel: int, event: Event) -> None:
        """An event of stream number `channel`."""
        found = self._channels.get(channel)
        if found is None:
            return
        self._actions.append(c.StreamEvent(stream=found.name, event=event))
        match event:
            case ReplyStarted():
                found.awaits = False
                found.replies.add(event.reply)
            case ReplyDone():
                found.replies.discard(event.reply)
            case Error(seq=1):
                found.awaits = False

    def ended(self, channel: int, error: BaseException | None = None) -> None:
        """There are no more events of stream number `channel`; `error` is what has broken them off."""
        found = self._channels.get(channel)
        if found is None:
            return
        if error is not None:
            self._actions.append(refusal(error, found.name, fatal=True))
        self._forget(found, "has ended")

    # ---- inside ----
    def _has(self, channel: _Channel) -> bool:
        return channel.number in self._channels

    def _channel(self, name: str) -> _Channel:
        channel = self._names.get(name)
        if channel is not None:
            return channel
        if name in self._ended:
            raise StreamClosedError(f"stream {name!r} has ended: expected an open stream")
        raise UnknownStreamError(f"stream {name!r} is not open on this connection: expected a name that `open` gave")

    def _check_new(self, name: str) -> None:
        if self._draining:
            raise DrainingError("the server is going down: expected no new streams, got one")
        if name in self._names:
            raise StreamNameError(f"stream {name!r} is open on this connection: expected another name")
        if len(self._names) >= self._max_streams:
            raise ServerLimitError(f"streams of one connection: at most {self._max_streams}, got one more")

    def _new(self, opening: Opening) -> _Channel:
        channel = _Channel(next(self._channel_numbers), opening)
        self._names[channel.name] = self._channels[channel.number] = channel
        return channel

    def _offer(self, channel: _Channel, command: c.Carried) -> None:
        """Let a command wait, and carry out what may be carried out. PenstockError where it is refused."""
        if isinstance(command, c.AskQuestion) and self._draining:
            raise DrainingError("the server is going down: expected no new questions, got one")
        self._check_room(channel, command)
        self._queue(channel, _Waiting(command))

    def _check_room(self, channel: _Channel, command: c.Carried) -> None:
        if channel.waiting >= WAITING_COMMANDS:
            raise ServerLimitError(
                f"stream {channel.name!r}: at most {WAITING_COMMANDS} messages may wait, got one more"
            )
        waiting_bytes = channel.bytes + command.size
        if waiting_bytes > self._waiting_bytes:
            raise ServerLimitError(
                f"stream {channel.name!r}: at most {self._waiting_bytes} bytes may wait, got {waiting_bytes}"
            )

    def _queue(self, channel: _Channel, waiting: _Waiting) -> None:
        channel.queue(waiting)
        self._go_on(channel)

    def _go_on(self, channel: _Channel) -> None:
        """Carry out what no longer has to wait."""
        if not channel.is_open:
            return
        while channel.urgent:
            self._carry(channel, channel.urgent.popleft())
        while channel.ordered and channel.at_work is None:
            waiting = channel.ordered.popleft()
            job = self._carry(channel, waiting)
            if isinstance(waiting.command, c.AskQuestion):
                channel.asking += 1
            else:
                channel.at_work = job

    def _carry(self, channel: _Channel, waiting: _Waiting) -> int:
        job = self._job(channel, *waiting)
        copy = 0 if waiting.copy is None else waiting.copy.number
        self._actions.append(c.Carry(job=job, channel=channel.number, command=waiting.command, copy=copy))
        return job

    def _job(self, channel: _Channel, command: c.Command, copy: _Channel | None = None) -> int:
        job = next(self._job_numbers)
        self._jobs[job] = _Job(channel, command, copy)
        channel.jobs[job] = command
        return job

    def _leave(self, job: int, found: _Job) -> None:
        """A job of this channel is over: what waited for it goes on."""
        channel = found.channel
        channel.jobs.pop(job)
        if not isinstance(found.command, c.OpenStream | c.RestoreStream):
            channel.bytes -= found.command.size
        if isinstance(found.command, c.AskQuestion):
            channel.questions -= 1
            channel.asking -= 1
        if channel.at_work == job:
            channel.at_work = None
        self._go_on(channel)

    def _never(self, channel: _Channel, error: BaseException) -> None:
        """The stream of this channel does not come into being."""
        self._actions.append(refusal(error, channel.name, channel.opening.ref, fatal=True))
        self._forget(channel, "was never opened")

    def _forget(self, channel: _Channel, what: str) -> None:
        """The channel is gone, and its name is free. Refuse what waited; what depended on it comes to nothing."""
        del self._names[channel.name], self._channels[channel.number]
        self._ended[channel.name] = None
        if len(self._ended) > ENDED_NAMES:
            self._ended.pop(next(iter(self._ended)))
        error = StreamClosedError(f"stream {channel.name!r} {what}")
        jobs = [(job, self._jobs.pop(job)) for job in channel.jobs]
        self._actions += [c.Cancel(job=job) for job, _ in jobs]
        copies = [found.copy for _, found in jobs]
        for command, copy in (*channel.urgent, *channel.ordered):
            copies.append(copy)
            if copy is None:
                self._actions.append(refusal(error, channel.name, command.ref))
        for copy in copies:
            if copy is not None and self._has(copy):
                self._never(copy, error)
