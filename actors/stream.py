"""The client's side of one stream: `Stream` and `Reply`. Safe to use from several tasks of one event loop at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..codecs.errors import (
    ContextOverflowError,
    DamagedError,
    FormatError,
    InputError,
    LimitError,
    MediaError,
    PenstockError,
    StreamClosedError,
)
from ..streams.event import Closed, Credit, Error, Event, ReplyDone, ReplyStarted, Token
from ..streams.item import MEDIA, AudioChunk, Embedding, Item, Text, VideoFrame
from ..streams.request import Request, SamplingParams
from .messages import Accept, Close, Flush, Fork, Hurry, Interrupt, Park, Take, Tell
from .outbox import MOST_UNREAD_TOKENS, Outbox

if TYPE_CHECKING:
    from .engine import Engine

# Media of one stream that may be on its way into the cache.
CREDIT_BYTES = 32 << 20
CREDIT_MEDIA_US = 60_000_000

_BY_CODE: dict[str, type[PenstockError]] = {
    kind.code: kind
    for kind in (MediaError, FormatError, LimitError, DamagedError, InputError, ContextOverflowError, StreamClosedError)
}


class Reply:
    """One reply while it comes: `async for token in reply`. Several tasks may read it; each sees all tokens."""

    def __init__(self, stream: Stream, id: int, seq: int) -> None:
        self._stream = stream
        self.id = id
        self.seq = seq
        self.reason: str | None = None  # how it ended; None while it runs
        self.error: PenstockError | None = None
        self._tokens: list[Token] = []
        self._rest = ""
        self._more = asyncio.Event()
        self.taken = 0  # tokens that somebody has read

    async def __aiter__(self) -> AsyncIterator[Token]:
        """The tokens from the first on; ends when the reply does. Raises the stream's error where it ended with one."""
        place = 0
        while True:
            while place < len(self._tokens):
                place += 1
                self.taken = max(self.taken, place)
                self._stream.read()
                yield self._tokens[place - 1]
            if self.reason is not None:
                if self.error is not None:
                    raise self.error
                return
            self._more.clear()
            await self._more.wait()

    async def text(self) -> str:
        """The whole text, when the reply has ended."""
        words = [token.text async for token in self]
        return "".join(words[: len(self._tokens)]) + self._rest

    @property
    def unread(self) -> int:
        return len(self._tokens) - self.taken

    def put(self, token: Token) -> None:
        self._tokens.append(token)
        self._wake()

    def end(self, reason: str, keep: int | None = None, rest: str = "", error: PenstockError | None = None) -> None:
        if self.reason is not None:
            return
        if keep is not None:
            del self._tokens[keep:]
            self.taken = min(self.taken, keep)
        self.reason, self._rest, self.error = reason, rest, error
        self._wake()

    def _wake(self) -> None:
        self._more.set()


class Stream:
    """One live conversation. Made by `Engine.stream`.

    Also an async context manager (closes at the end) and an async iterator of its events, in order, for one reader.
    Cancelling any awaited call leaves the stream usable: an input is in or it is not.
    """

    def __init__(self, engine: Engine, id: int, request: Request, prompted: bool) -> None:
        self._engine = engine
        self.id = id
        self.request = request
        self.format = ""  # in force, once the stream is open
        self.why = ""
        self.trained = engine.info.live_trained
        self._seq = int(prompted)
        self._media = False
        self._ended = False
        self._closing = False
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox = Outbox()
        self._asked: dict[int, asyncio.Future[Reply]] = {}
        self._replies: dict[int, Reply] = {}
        self._current: Reply | None = None
        self._pending: dict[int, int] = {}  # bytes of inputs that are on their way, by number
        self._times: dict[int, int] = {}  # media time of these, where it is known
        self._newest_us = 0
        self._room = asyncio.Event()
        self._parked = False
        if prompted:
            self._asked[1] = asyncio.get_running_loop().create_future()

    async def append(self, item: Item) -> int:
        """Append media or words; returns the input's number.

        With policy "block" it waits until there is credit; with "latest" it never waits, and what is too old is dropped and
        reported. Raises InputError for what this model does not take, StreamClosedError after the end. What is wrong with the
        bytes themselves is found later and comes as an `Error` event with this number.
        """
        self._check_open()
        if isinstance(item, Embedding):
            raise InputError("embeddings as input: not supported yet")
        if isinstance(item, Text):
            return self._accept("text", text=item.text)
        if not isinstance(item, MEDIA):
            raise InputError(f"expected an item (Text, Image, VideoFrame, ...), got {type(item).__name__}")
        if self._ended:
            raise InputError("the media of this stream has ended: expected no more, got one")
        if not self._engine.info.modalities:
            raise InputError(f"this model takes text only, got {type(item).__name__}")
        size = item.data.nbytes if hasattr(item.data, "nbytes") else len(item.data)
        while self.request.policy == "block" and self._pending and self.credit_bytes < size:
            self._room.clear()
            await self._room.wait()
            self._check_open()
        self._media = True
        seq = self._accept("media", done=False)
        self._pending[seq] = size
        if isinstance(item, VideoFrame | AudioChunk):
            self._times[seq] = item.pts_us
            self._newest_us = max(self._newest_us, item.pts_us)
        self._engine.decode.put_now(Take(self.id, seq, item), size)
        return seq

    async def ask(
        self, question: str = "", params: SamplingParams | None = None, *, wait_ms: int | None = None
    ) -> Reply:
        """Ask; returns the reply when it begins, which is when all earlier inputs are in the cache.

        `wait_ms`: how long the question waits for media that is still being decoded or encoded; None: as long as it takes.
        Raises InputError, ContextOverflowError or StreamClosedError where it is refused. After a cancelled wait the question
        is asked all the same.
        """
        self._check_open()
        (params or self.request.params).check()
        seq = self._accept("ask", text=question, params=params, done=not self._media)
        asked = self._asked[seq] = asyncio.get_running_loop().create_future()
        if self._media:
            self._engine.decode.put_now(Flush(self.id, seq))
            if wait_ms is not None:
                hurry = Hurry(self.id, seq)
                timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._engine.send, hurry)
                asked.add_done_callback(lambda _: timer.cancel())
        return await asyncio.shield(asked)

    async def prompted(self) -> Reply:
        """The reply to the request's own messages."""
        if 1 not in self._asked and not any(reply.seq == 1 for reply in self._replies.values()):
            raise InputError("expected a request with messages, got one without")
        for reply in self._replies.values():
            if reply.seq == 1:
                return reply
        return await asyncio.shield(self._asked[1])

    async def interrupt(self, at: int | None = None) -> None:
        """End the running reply behind its token `at` (default: the last that was taken), keep its KV up to there."""
        self._check_open()
        if self._current is not None:
            self._engine.send(Interrupt(self.id, self._current.taken - 1 if at is None else at))

    async def end(self) -> None:
        """No more media will come; a reply that is held open may end."""
        self._check_open()
        if not self._ended:
            self._ended = True
            seq = self._accept("end", done=not self._media)
            if self._media:
                self._engine.decode.put_now(Flush(self.id, seq))

    async def fork(self) -> Stream:
        """A stream that is what this one is now: pages are shared, what either appends the other does not see."""
        self._check_open()
        return await self._engine.fork(self)

    async def close(self) -> None:
        """End the stream and free what it holds. May be called again."""
        if not self._closing:
            self._closing = True
            self._engine.end_stream(self.id, "closed")
        await self._engine.closed(self.id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._outbox.get()) is not None:
            if isinstance(event, Token) and event.reply in self._replies:
                reply = self._replies[event.reply]
                reply.taken = max(reply.taken, event.index + 1)
            self.read()
            yield event

    @property
    def credit_bytes(self) -> int:
        """How many bytes of media may be appended without waiting."""
        return max(0, CREDIT_BYTES - sum(self._pending.values()))

    @property
    def closed(self) -> bool:
        return self._outbox.closed

    def read(self) -> None:
        """Somebody has read something: a parked stream may go on."""
        if self._parked and self._unread() <= MOST_UNREAD_TOKENS // 2:
            self._parked = False
            self._engine.send(Park(self.id, False))
            self._engine.unparked(self.id)

    def told(self, message: Tell) -> None:
        """Events from the engine."""
        if message.opened is not None:
            self.format, self.why = message.opened
            if not self._opened.done():
                self._opened.set_result(None)
        for event in message.events:
            self._event(event)
        for seq in message.resolved:
            self._pending.pop(seq, None)
            self._times.pop(seq, None)
        if message.resolved and not self.closed:
            self._room.set()
            waiting_us = self._newest_us - min(self._times.values(), default=self._newest_us)
            self._outbox.put(Credit(self.credit_bytes, max(0, CREDIT_MEDIA_US - waiting_us)))
        if not self._parked and not self.closed and self._unread() > MOST_UNREAD_TOKENS:
            self._parked = True
            self._engine.send(Park(self.id, True))
            self._engine.parked(self.id)

    def next_seq(self) -> int:
        """The number that the next input will have."""
        return self._seq + 1

    async def opened(self) -> None:
        await asyncio.shield(self._opened)

    def _event(self, event: Event) -> None:
        match event:
            case ReplyStarted(id, seq):
                self._current = self._replies[id] = Reply(self, id, seq)
                asked = self._asked.pop(seq, None)
                if asked is not None and not asked.done():
                    asked.set_result(self._current)
            case Token(reply):
                if reply in self._replies:
                    self._replies[reply].put(event)
            case ReplyDone(reply, reason, tokens, text):
                self._outbox.cut(reply, tokens)
                if reply in self._replies:
                    self._replies.pop(reply).end(reason, tokens, text)
                if self._current is not None and self._current.id == reply:
                    self._current = None
            case Error(code, message, seq, fatal):
                self._fail(_BY_CODE.get(code, PenstockError)(message), seq, fatal)
            case Closed(reason):
                self._fail(StreamClosedError(f"the stream has ended: {reason}"), None, True)
        self._outbox.put(event)

    def _fail(self, error: PenstockError, seq: int | None, fatal: bool) -> None:
        for number in [number for number in self._asked if fatal or number == seq]:
            asked = self._asked.pop(number)
            if not asked.done():
                asked.set_exception(error)
                asked.exception()  # a question whose caller has gone is no news to the event loop
        if not fatal:
            return
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()
        for reply in self._replies.values():
            interrupted = isinstance(error, StreamClosedError) and self._closing
            reply.end("interrupted" if interrupted else "error", error=None if interrupted else error)
        self._replies.clear()
        self._room.set()

    def _accept(self, kind: str, text: str = "", params: SamplingParams | None = None, done: bool = True) -> int:
        self._seq += 1
        at = None if self._current is None else self._current.taken - 1
        self._engine.send(Accept(self.id, self._seq, kind, text, params, done, at))
        return self._seq

    def _unread(self) -> int:
        if self._outbox.attached:
            return self._outbox.unread_tokens
        return self._current.unread if self._current is not None else 0

    def _check_open(self) -> None:
        if self._closing or self.closed:
            raise StreamClosedError("the stream has ended: expected no further call, got one")
        self._engine.check_alive()
