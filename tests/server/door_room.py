"""A door of the server with its session, and an engine that a test steps: no socket, no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from penstock.server import commands as c
from penstock.server.session import Session
from penstock.streams.event import Closed, Event, Token
from penstock.streams.item import AudioChunk
from penstock.streams.requests.turns import TurnDetection

FACTS = c.StreamFacts(id=1, format="turns", why="asked for", trained=False)
Said = tuple[str, str]  # a role and words


class SteppedStream:
    """A stream of an engine that does what a test tells it. `said` is what its model has; what comes while a reply runs
    is there behind it."""

    def __init__(self, said: Sequence[Said] = ()) -> None:
        self.said: list[Said] = list(said)
        self.asked: list[int] = []  # questions without a reply yet
        self.reply: list[str] | None = None
        self.waits: list[Said] = []
        self.replies = self.seq = self.turns = 0
        self.listens: TurnDetection | None = None
        self.cut = False

    @property
    def busy(self) -> bool:
        return self.reply is not None or bool(self.asked)

    def put(self, said: Said, waits: bool) -> None:
        (self.waits if waits else self.said).append(said)


class DoorRoom(ABC):
    """`door` is made by the subclass, which also says what a client gets (`_tell`) and what is asked (`_asked`)."""

    door: Any

    def __init__(self, max_streams: int) -> None:
        self.session = Session(max_streams=max_streams, waiting_bytes=1 << 20)
        self.streams: dict[int, SteppedStream] = {}
        self.requests: list[Any] = []  # `Request`s

    @abstractmethod
    def _tell(self, frame: bytes) -> None:
        """A message for the client."""

    @abstractmethod
    def _asked(self, stream: SteppedStream, ref: Any) -> None:
        """A question, or a prompt that is one."""

    @abstractmethod
    def words(self, item: Any) -> str:
        """What an item is for the model."""

    def waits(self, stream: SteppedStream) -> bool:
        """Whether what comes now stands behind a reply."""
        return stream.busy

    def _pass(self, parts: Iterable[Any]) -> None:
        for part in list(parts):
            if isinstance(part, bytes):
                self._tell(part)
            else:
                self.session.take(part)

    def work(self) -> None:
        """Carry out what the session wants, all of it at once."""
        while actions := self.session.actions():
            for action in actions:
                match action:
                    case c.Begin(channel=channel, command=c.OpenStream() as command):
                        self._open(channel, command)
                        self.session.opened(action.job, FACTS)
                    case c.Carry():
                        self._carry(action)
                    case c.Shut(channel=channel):
                        self._end(channel)
                    case c.Cancel() | c.StopMedia() | c.Begin():
                        pass
                    case _:
                        self._pass(self.door.tell(action))

    def _open(self, channel: int, command: c.OpenStream) -> None:
        request, stream = command.request, SteppedStream()
        request.check()
        self.requests.append(request)
        stream.listens = request.turn_detection
        self.streams[channel] = stream
        if request.system:
            stream.said.append(("system", request.system))
        for message in request.messages or ():
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in parts:
                value = part[part["type"]]
                stream.said.append((message["role"], value if part["type"] == "text" else self.words(value)))
        if request.starts:
            self._asked(stream, command.ref)

    def _carry(self, action: c.Carry) -> None:
        stream = self.streams.get(action.channel)
        if stream is None:  # it is broken
            return
        match action.command:
            case c.AppendItem(item=item):
                stream.seq += 1
                if not isinstance(item, AudioChunk) or item.pts_us is None:  # else it is heard as a test says
                    stream.put(("user", self.words(item)), self.waits(stream))
            case c.AskQuestion(ref=ref):
                self._asked(stream, ref)
            case c.InterruptReply():
                stream.cut = stream.busy
            case c.Listen(turn_detection=wanted):
                stream.listens = wanted
            case c.ForkStream():
                self.streams[action.copy] = SteppedStream(stream.said)
                self.session.opened(action.job, FACTS)
                return
            case c.CloseStream():
                self.session.done(action.job)
                self._end(action.channel)
                return
        self.session.done(action.job, seq=stream.seq)

    def _end(self, channel: int) -> None:
        if self.streams.pop(channel, None):
            self.session.event(channel, Closed("closed"))
            self.session.ended(channel)

    def emit(self, channel: int, event: Event) -> None:
        self.session.event(channel, event)
        self.work()

    def token(self, channel: int, stream: SteppedStream, words: str) -> None:
        assert stream.reply is not None
        stream.reply.append(words)
        self.emit(channel, Token(stream.replies, len(stream.reply) - 1, 1, words, None))

    def listening(self) -> list[tuple[int, SteppedStream]]:
        return [(channel, stream) for channel, stream in self.streams.items() if stream.listens is not None]
