"""One stream on a server, and its replies, as a client sees them.

In come items, questions and commands, and the events of the stream; out go frames for the connection. The calls are
those of the in-process stream. Events that nobody takes are kept up to `UNREAD_EVENTS`; then the oldest go
(`ClientStream.missed`). Knows no socket and no torch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import msgspec
import numpy as np

from ..actors.reply import Speech
from ..actors.talk import Talk
from ..errors import InputError, PenstockError, StreamClosedError
from ..streams import event as events
from ..streams import item as items
from ..streams.requests.request import SamplingParams
from ..streams.requests.turns import TurnDetection
from . import wire
from .errors import ConnectionLostError, error_from_code
from .inline import interleaved, png

UNREAD_EVENTS = 10_000
Encode = Callable[[str], str | bytes]


class Link(Protocol):
    """What a stream needs of its connection."""

    @property
    def piece_bytes(self) -> int:
        """How much of a file goes into one message."""
        ...

    async def send(self, frame: str | bytes) -> int:
        """Send one frame; returns its number."""
        ...

    async def call(self, encode: Encode, stream: str | None) -> wire.Answer:
        """Send `encode(ref)`; the answer with that ref."""
        ...

    async def open_copy(self, source: ClientStream, again: SamplingParams | None, **back: int | None) -> ClientStream:
        """A fork of `source`."""
        ...


class ClientReply(Speech):
    """One reply over the network."""

    def put(self, token: events.Token) -> None:
        """Take a token."""
        self._put(token)

    def done(self, event: events.ReplyDone, error: PenstockError | None) -> None:
        """The reply has ended, where it failed with `error`, and keeps its first `event.tokens` tokens."""
        del self._tokens[event.tokens :]
        self._end(event.reason, event.text, error if event.reason == "error" else None, event.since_us)

    def fail(self, error: PenstockError | None) -> None:
        """Its stream has ended before it; None: because its client closed it."""
        if self.reason is None:
            self._end("error" if error else "interrupted", "", error, None)


class ClientStream(Talk[ClientReply]):
    """One stream on the server; its calls are those of the in-process stream.

    A cancelled call leaves the stream usable; what it had sent may have been accepted.
    """

    def __init__(self, connection: Link, name: str, prompted: bool = False) -> None:
        self.name = name
        self.id = 0
        self.format = ""
        self.why = ""
        self.trained = False
        self.missed = 0  # Events that went unread because there were too many.
        self._connection = connection
        self._prompted = prompted  # Its request had a prompt: input 1 is it.
        self._events: deque[events.Event] = deque()
        self._changed = asyncio.Event()
        self._replies: dict[int, ClientReply] = {}  # Running, and those whose question is not answered yet.
        self._asking = 0
        self._ended = False  # No more media will come.
        self._closing = False  # This side has asked for the end.
        self._closed: str | None = None  # Why, once it is.
        self._error: PenstockError | None = None  # What has ended it.
        self._fault: PenstockError | None = None  # The newest error.
        self._refusal: PenstockError | None = None  # Why the request's prompt has no reply.

    async def append(self, item: items.Item) -> int:
        """Append an item; returns its number in the stream. PenstockError where the server refuses it.

        A file that is too large for a message goes in pieces, each an input of its own; the number is the last one's.
        """
        if isinstance(item, items.Image) and isinstance(item.data, np.ndarray):
            item = msgspec.structs.replace(item, data=await asyncio.to_thread(png, item.data))
        if isinstance(item, items.Text):
            accepted = await self._call(wire.TextMessage, text=item.text)
        else:
            for piece in _pieces(item, self._connection.piece_bytes):
                accepted = await self._accepted(partial(_frame, piece, self.name))
        assert accepted.seq is not None
        return accepted.seq

    async def ask(
        self,
        question: str = "",
        params: SamplingParams | None = None,
        *,
        wait_ms: int | None = None,
        hold: bool | None = None,
        ignore_failed: bool = False,
        lookback: float | None = None,
    ) -> ClientReply:
        """Ask; returns the reply when it begins. The options are those of the in-process `ask`."""
        chosen = None if params is None else wire.wire_params(params)
        ways = {"wait_ms": wait_ms, "hold": hold, "ignore_failed": ignore_failed, "lookback": lookback}
        self._asking += 1
        try:
            accepted = await self._call(wire.Ask, question=question, params=chosen, **ways)
            assert accepted.reply is not None
            reply = self._reply(accepted.reply)
        finally:
            self._asking -= 1
            self._let_go()
        reply.seq = accepted.seq
        return reply

    async def prompted(self) -> ClientReply:
        """The reply to the request's own prompt. Safe to cancel."""
        if not self._prompted:
            raise InputError("expected a request with messages or a prompt, got one without")
        while True:
            for reply in self._replies.values():
                if reply.seq == 1:
                    return reply
            if self._refusal is not None:
                raise self._refusal
            if self._closed is not None:
                raise self._error or StreamClosedError(f"the stream has ended: {self._closed}")
            await self._next_change()

    async def interrupt(self, at: int | None = None) -> None:
        """Cut the running reply after token `at`; None: after the last one that the server sent."""
        await self._call(wire.InterruptMessage, at=at)
        for reply in self._replies.values():
            reply.held = False

    async def listen(self, turn_detection: TurnDetection | None) -> None:
        """Listen for speech in this way from here on, as the in-process `listen` does. `None`: no longer."""
        await self._call(wire.ListenMessage, turn_detection=turn_detection)

    async def end(self) -> None:
        """Say that no more media will come."""
        await self._call(wire.End)
        self._ended = True
        for reply in self._replies.values():
            reply.held = False

    async def fork(
        self, again: SamplingParams | None = None, *, back_to: int | None = None, back_to_us: int | None = None
    ) -> ClientStream:
        """A copy of this stream as it is now, or as it was; the options are those of the in-process `fork`."""
        return await self._connection.open_copy(self, again, back_to=back_to, back_to_us=back_to_us)

    async def snapshot(self, file: str) -> None:
        """Write this stream, as it is now, to a file of the server, from which `Connection.restore` goes on.

        file: a name of at most 100 letters, digits, ".", "_" and "-", with a letter or a digit first. A file of that
            name is replaced. Every client of the server can restore it.

        Raises InputError if the server keeps no snapshots, else as the in-process `snapshot` does.
        """
        await self._call(wire.SnapshotMessage, name=file)

    async def close(self) -> None:
        """End the stream and wait until the server says so; idempotent. A lost connection has ended it too."""
        if self._closed is None:
            self._closing = True
            try:
                await self._connection.send(wire.encode_command(wire.CloseMessage(stream=self.name)))
            except ConnectionLostError:
                return
        while self._closed is None:
            await self._next_change()

    @property
    def closed(self) -> bool:
        return self._closed is not None

    async def __anext__(self) -> events.Event:
        """The next event; ends after `Closed`. One consumer. Safe to cancel."""
        while not self._events:
            if self._closed is not None:
                raise StopAsyncIteration
            await self._next_change()
        return self._events.popleft()

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
        match event:
            case events.ReplyStarted() if self._asking or self._answers_prompt(event.seq):
                reply = self._reply(event.reply)
                reply.held = event.held and not self._ended
                if self._answers_prompt(event.seq):
                    reply.seq = 1
            case events.Token() if self._asking or event.reply in self._replies:
                self._reply(event.reply).put(event)
            case events.ReplyDone() if self._asking or event.reply in self._replies:
                self._reply(event.reply).done(event, self._fault)
                self._let_go()
            case events.Error():
                self._fault = error_from_code(event.code, event.message)
                if event.fatal:
                    self._error = self._fault
                elif self._answers_prompt(event.seq):
                    self._refusal = self._fault
            case events.Closed():
                self._closed = event.reason
                error = self._error or StreamClosedError(f"the stream has ended: {event.reason}")
                for reply in self._replies.values():
                    reply.fail(None if self._closing else error)
        self._changed.set()

    def _reply(self, reply: int) -> ClientReply:
        return self._replies.setdefault(reply, ClientReply(reply))

    def _let_go(self) -> None:
        """Forget the replies that have ended. While a question is not answered any of them may be its own; the reply
        to the prompt is kept for `prompted`.
        """
        if not self._asking:
            for reply in list(self._replies.values()):
                if reply.reason is not None and not self._answers_prompt(reply.seq):
                    del self._replies[reply.id]

    def _answers_prompt(self, seq: int | None) -> bool:
        return self._prompted and seq == 1

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


def _pieces(item: items.Item, most: int) -> Iterator[items.Item]:
    """The item, a long file cut into pieces of at most `most` bytes."""
    if not isinstance(item, items.VideoBytes | items.AudioBytes) or len(item.data) <= most:
        yield item
        return
    data = memoryview(item.data)
    for start in range(0, len(data), most):
        stop = min(start + most, len(data))
        final = item.final and stop == len(data)
        yield msgspec.structs.replace(item, data=data[start:stop], final=final)


def _frame(item: items.Item, stream: str, ref: str) -> bytes:
    return wire.encode_binary(*_binary(item, stream, ref))


def _binary(item: items.Item, stream: str, ref: str) -> tuple[wire.Header, bytes | bytearray | memoryview]:
    """Header and payload of an item that is media. InputError where the wire has no form for it."""
    data: Any = getattr(item, "data", None)
    match item:
        case items.Image():
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
            encoding, channels, data = interleaved(item)
            header = wire.PcmHeader(
                stream=stream, ref=ref, pts_us=item.pts_us, rate=item.rate, channels=channels, encoding=encoding
            )
            return header, data
        case items.AudioBytes():
            return wire.AudioHeader(stream=stream, ref=ref, final=item.final, pts_us=item.pts_us), data
        case items.Embedding():
            told = {name: getattr(item, name) for name in ("kind", "grid", "pts_us", "stop_us")}
            if isinstance(data, np.ndarray):
                if data.ndim != 2 or data.dtype not in (np.float32, np.float16):
                    raise InputError(
                        f"embedding: expected (n, hidden) float32 or float16, got {data.shape} {data.dtype}"
                    )
                encoding = "f32le" if data.dtype == np.float32 else "f16le"
                told |= {"encoding": encoding, "width": data.shape[1]}
                data = np.ascontiguousarray(data).tobytes()
            return wire.EmbeddingHeader(stream=stream, ref=ref, **told), data
    raise InputError(f"{type(item).__name__}: expected an item that the wire can carry")
