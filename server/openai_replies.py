"""The replies that one HTTP request asks for: to one or several prompts, some to each. Sans I/O.

In come requests of the engine and the answers of a session; out go commands for it, and what was said in which reply. A
prompt with several replies is computed once: the others are forks of the first. Knows no shape of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from ..streams.event import Closed, Error, ReplyDone, ReplyStarted, Token
from ..streams.requests.request import Request
from . import commands as c
from .openai_words import Failure, failed, refused
from .tool_calls import ReplyPart, TextDelta, ToolCallArguments, ToolCallReader, ToolCallStarted


class Began(NamedTuple):
    """A reply has begun."""

    choice: int


class PartSaid(NamedTuple):
    """A piece of a reply, and the token that it came with, if it is the token's first piece."""

    choice: int
    part: ReplyPart
    token: Token | None


class Ended(NamedTuple):
    """A reply has ended, for the reason that `ReplyDone` gives."""

    choice: int
    reason: str


Happened = Began | PartSaid | Ended


class _Choice:
    def __init__(self, reader: ToolCallReader | None) -> None:
        self.reader = reader
        self.ended = False

    def read(self, text: str) -> Sequence[ReplyPart]:
        if self.reader is not None:
            return self.reader.feed(text)
        return [TextDelta(text)] if text else []

    def rest(self) -> Sequence[ReplyPart]:
        return [] if self.reader is None else self.reader.end()


class Replies:
    """`n` replies to each request. The reply number `i` of a prompt is drawn with the seed plus `i`, if there is one.

    rows, cached: of all prompts, and how many of these the KV cache held. tokens: of all replies so far that have
    ended. failure: what has come between; then nothing else comes.
    """

    def __init__(
        self, requests: Sequence[Request], n: int, make_reader: Callable[[int], ToolCallReader] | None = None
    ) -> None:
        self._requests = requests
        self._n = n
        self._choices = [
            _Choice(None if make_reader is None else make_reader(number)) for number in range(len(requests) * n)
        ]
        self._forked: set[int] = set()
        self.rows = self.tokens = self.cached = 0
        self.failure: Failure | None = None

    @property
    def done(self) -> bool:
        """All replies have ended, or none will any more."""
        return self.failure is not None or all(choice.ended for choice in self._choices)

    def calls(self, choice: int) -> int:
        """How many tools a reply has called so far."""
        reader = self._choices[choice].reader
        return 0 if reader is None else reader.calls

    def open(self, size: int) -> Iterator[c.Command]:
        """What opens the streams; `size`: bytes of the request, which count with the first."""
        for place, request in enumerate(self._requests):
            ways = msgspec.structs.replace(request.params, hold=False)
            # Whole replies: nothing leaves the prompt, and its rows stand as the library has them.
            whole = msgspec.structs.replace(request, params=ways, window=None, positions="transformers")
            yield c.OpenStream(stream=str(place * self._n), request=whole, size=0 if place else size)

    def take(self, answer: c.Answer) -> Iterator[Happened | c.Command]:
        """What an answer of the session means."""
        if self.done:
            return
        match answer:
            case c.Refused():
                self.failure = refused(answer)
            case c.StreamEvent(stream=name, event=event):
                number = int(name)
                match event:
                    case ReplyStarted():
                        yield Began(number)
                    case Token():
                        yield from self._fork(number)
                        yield from self._token(number, event)
                    case ReplyDone(reason="stop" | "length"):
                        yield from self._fork(number)
                        yield from self._end(number, event)
                    case Error():
                        self.failure = failed(event.code, event.message)
                    case Closed() if not self._choices[number].ended:
                        self.failure = failed("stream_closed", f"the reply was broken off: {event.reason}")

    def _fork(self, number: int) -> Iterator[c.Command]:
        """The first reply of a prompt has begun, so the prompt is in the cache: begin the others."""
        place, first = divmod(number, self._n)
        if first or place in self._forked:
            return
        self._forked.add(place)
        params = self._requests[place].params
        for way in range(1, self._n):
            seed = None if params.seed is None else params.seed + way
            again = msgspec.structs.replace(params, seed=seed, hold=False)
            yield c.ForkStream(stream=str(number), copy=str(number + way), again=again)

    def _token(self, number: int, token: Token) -> Iterator[Happened]:
        parts = self._choices[number].read(token.text)
        if not parts and token.logprob is not None:
            parts = [TextDelta("")]
        for place, part in enumerate(parts):
            yield PartSaid(number, part, None if place else token)

    def _end(self, number: int, done: ReplyDone) -> Iterator[Happened]:
        choice = self._choices[number]
        for part in (*choice.read(done.text), *choice.rest()):
            yield PartSaid(number, part, None)
        choice.ended = True
        self.tokens += done.tokens
        if number % self._n == 0:
            self.rows += done.rows
            self.cached += done.cached
        yield Ended(number, done.reason)


class Whole:
    """One reply, put together from its pieces."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: list[dict[str, str]] = []  # "id", "name" and "arguments" of each
        self.tokens: list[Token] = []
        self.reason = ""

    def take(self, happened: Happened) -> None:
        """The next thing that happened in it."""
        match happened:
            case PartSaid(part=part, token=token):
                if token is not None:
                    self.tokens.append(token)
                match part:
                    case TextDelta(text):
                        self.text += text
                    case ToolCallStarted(_, id, name):
                        self.calls.append({"id": id, "name": name, "arguments": ""})
                    case ToolCallArguments(index, text):
                        self.calls[index]["arguments"] += text
            case Ended(reason=reason):
                self.reason = reason
