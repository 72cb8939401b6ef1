"""One stream on a server, and its replies, as a client sees them.

In come items, questions and commands, and the events of the stream; out go frames for the connection. The calls are
those of the in-process stream. Events that nobody takes are kept up to `UNREAD_EVENTS`; then the oldest go
(`ClientStream.missed`). Knows no socket and no torch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from ..codecs.errors import InputError, StreamClosedError
from ..streams import event as events
from ..streams import item as items
from ..streams.request import SamplingParams
from . import wire
from .errors import ConnectionLostError

UNREAD_EVENTS = 10_000
Encode = Callable[[str], str | bytes]


class Link(Protocol):
    """What a stream needs of its connection."""

    async def send(self, frame: str | bytes) -> None:
        """Send one frame."""
        ...

    async def call(self, encode: Encode, stream: str | None) -> wire.Answer:
        """Send `encode(ref)`; the answer with that ref."""
        ...

    async def open_copy(self, source: ClientStream) -> ClientStream:
        """A fork of `source`."""
        ...


class ClientReply:
    """One reply: an async iterator of its tokens, for one consumer. `reason` says how it ended, None before."""

    def __init__(self, reply: int) -> None:
        self.id = reply
        self.seq: int | None = None  # Number of the question among the stream's inputs.
        self.reason: str | None = None
        self._rest = ""  # Text that was held back until the end.
        self._texts: list[str] = []
        self._tokens: deque[events.Token] = deque()
        self._changed = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[events.Token]:
        return self

    async def __anext__(self) -> events.Token:
        """The next token. Safe to cancel."""
        while not self._tokens:
            if self.reason is not None:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        token = self._tokens.popleft()
        self._texts.append(token.text)
        return token

    async def text(self) -> str:
        """Wait for the end; the whole text, tokens already taken included. Safe to cancel."""
        async for _ in self:
            pass
        return "".join(self._texts) + self._rest

    def put(self, event: events.Token | events.ReplyDone | events.Closed) -> None:
        """Take an event of this reply, or the end of its stream."""
        if isinstance(event, events.Token):
            self._tokens.append(event)
        elif self.reason is None:
            self.reason = event.reason if isinstance(event, events.ReplyDone) else "error"
            self._rest = event.text if isinstance(event, events.ReplyDone) else ""
        self._changed.set()


class ClientStream:
    """One stream on the server; its calls are those of the in-process stream.

    A cancelled call leaves the stream usable; what it had sent may have been accepted.
    """

    def __init__(self, connection: Link, name: str) -> None:
        self.name = name
        self.id = 0
        self.format = ""
        self.why = ""
        self.trained = False
        self.missed = 0  # Events that went unread because there were too many.
        self._connection = connection
        self._events: deque[events.Event] = deque()
        self._changed = asyncio.Event()
        self._replies: dict[int, ClientReply] = {}  # Running, and those whose question is not answered yet.
        self._asking = 0
        self._closed: str | None = None  # Why, once it is.

    async def append(self, item: items.Item) -> int:
        """Append an item; returns its number in the stream. PenstockError where the server refuses it."""
        if isinstance(item, items.Text):
            accepted = await self._call(wire.TextMessage, text=item.text)
        else:
            accepted = await self._accepted(lambda ref: wire.encode_binary(*_binary(item, self.name, ref)))
        assert accepted.seq is not None
        return accepted.seq

    async def ask(
        self, question: str = "", params: SamplingParams | None = None, *, wait_ms: int | None = None
    ) -> ClientReply:
        """Ask for a reply; returns as soon as the server has taken the question."""
        chosen = None
        if params is not None:
            chosen = wire.Params(**{name: getattr(params, name) for name in SamplingParams.__struct_fields__})
        self._asking += 1
        try:
            accepted = await self._call(wire.Ask, question=question, params=chosen, wait_ms=wait_ms)
            assert accepted.reply is not None
            reply = self._reply(accepted.reply)
        finally:
            self._asking -= 1
        reply.seq = accepted.seq
        if reply.reason is not None:
            self._replies.pop(reply.id, None)
        return reply

    async def interrupt(self, at: int | None = None) -> None:
        """Cut the running reply behind token `at`; None: behind the last one that the server sent."""
        await self._call(wire.Interrupt, at=at)

    async def end(self) -> None:
        """Say that no more media will come."""
        await self._call(wire.End)

    async def fork(self) -> ClientStream:
        """A copy of this stream as it is now."""
        return await self._connection.open_copy(self)

    async def close(self) -> None:
        """End the stream and wait until the server says so; idempotent. A lost connection has ended it too."""
        if self._closed is None:
            try:
                await self._connection.send(wire.encode_command(wire.Close(stream=self.name)))
            except ConnectionLostError:
                return
        while self._closed is None:
            await self._next_change()

    def __aiter__(self) -> AsyncIterator[events.Event]:
        return self

    async def __anext__(self) -> events.Event:
        """The next event; ends behind `Closed`. One consumer. Safe to cancel."""
        while not self._events:
            if self._closed is not None:
                raise StopAsyncIteration
            await self._next_change()
        return self._events.popleft()

    async def __aenter__(self) -> ClientStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- from the connection ----
    def opened(self, answer: wire.Opened | wire.Forked) -> None:
        """Take the server's answer to `open` or `fork`."""
        self.id, self.format, self.why, self.trained = answer.id, answer.format, answer.why, answer.trained

    def put(self, event: events.Event) -> None:
        """Take an event of this stream."""
        if len(self._events) >= UNREAD_EVENTS:
            self._events.popleft()
            self.missed += 1
        self._events.append(event)
        if isinstance(event, events.Token | events.ReplyDone) and (self._asking or event.reply in self._replies):
            self._reply(event.reply).put(event)
            if isinstance(event, events.ReplyDone) and not self._asking:
                del self._replies[event.reply]
        if isinstance(event, events.Closed):
            for reply in self._replies.values():
                reply.put(event)
            self._closed = event.reason
        self._changed.set()

    def _reply(self, reply: int) -> ClientReply:
        return self._replies.setdefault(reply, ClientReply(reply))

    async def _next_change(self) -> None:
        """Wait for an event. Several tasks may wait: each is woken by the event object that it saw."""
        if self._changed.is_set():
            self._changed = asyncio.Event()
        await self._changed.wait()

    async def _call(self, message: type[Any], **fields: Any) -> wire.Accepted:
        return await self._accepted(lambda ref: wire.encode_command(message(stream=self.name, ref=ref, **fields)))

    async def _accepted(self, encode: Encode) -> wire.Accepted:
        if self._closed is not None:
            raise StreamClosedError(f"stream {self.name!r} has ended ({self._closed}): expected an open stream")
        answer = await self._connection.call(encode, self.name)
        assert isinstance(answer, wire.Accepted)
        return answer


def _binary(item: items.Item, stream: str, ref: str) -> tuple[wire.Header, bytes | bytearray | memoryview]:
    """Header and payload of an item that is media. InputError where the wire has no form for it."""
    data: Any = getattr(item, "data", None)
    match item:
        case items.Image():
            if isinstance(data, np.ndarray):
                raise InputError(f"image: expected a file's bytes over the wire, got an array {data.shape}")
            return wire.ImageHeader(stream=stream, ref=ref, pts_us=item.pts_us), data
        case items.VideoFrame():
            encoding, width, height = item.encoding, item.width, item.height
            if isinstance(data, np.ndarray):
                if data.ndim != 3 or data.shape[2] != 3 or data.dtype != np.uint8:
                    raise InputError(f"frame: expected (h, w, 3) uint8, got {data.shape} {data.dtype}")
                encoding, (height, width), data = "rgb24", data.shape[:2], data.tobytes()
            header = wire.FrameHeader(
                stream=stream, ref=ref, pts_us=item.pts_us, encoding=encoding, width=width, height=height
            )
            return header, data
        case items.VideoBytes():
            return wire.VideoHeader(stream=stream, ref=ref, final=item.final, pts_us=item.pts_us), data
        case items.AudioChunk():
            encoding, channels = item.encoding, item.channels
            if isinstance(data, np.ndarray):
                if data.ndim != 2 or data.dtype != np.float32:
                    raise InputError(f"sound: expected (channels, n) float32, got {data.shape} {data.dtype}")
                encoding, channels, data = "f32le", data.shape[0], data.T.astype("<f4").tobytes()
            header = wire.PcmHeader(
                stream=stream, ref=ref, pts_us=item.pts_us, rate=item.rate, channels=channels, encoding=encoding
            )
            return header, data
        case items.AudioBytes():
            return wire.AudioHeader(stream=stream, ref=ref, final=item.final, pts_us=item.pts_us), data
    raise InputError(f"{type(item).__name__}: expected an item that the wire can carry")
