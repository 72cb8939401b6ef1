"""An engine without a model that does what a test tells it, of the shape of `penstock.actors.engine.Engine`.

Each question gets `tokens` tokens; with `gate` set, a token only when a test lets it through. Items are kept as they
came.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from penstock.errors import InputError, StreamClosedError
from penstock.streams.event import Appended, Closed, Error, Event, ReplyDone, ReplyStarted, Seen, Token
from penstock.streams.item import Item, Text, VideoBytes
from penstock.streams.requests.request import Request, SamplingParams

DEFAULTS = Request()


class FakeInfo(msgspec.Struct, frozen=True, kw_only=True):
    model: str = "fake"
    family: str = "fake"
    modalities: tuple[str, ...] = ("text", "image", "video", "audio")
    formats: tuple[str, ...] = ("turns", "live", "interrupt")
    live_trained: bool = False
    max_positions: int = 4096
    kv_tokens: int = 4096
    device: str = "cpu"
    dtype: str = "float32"
    transcription: None = None
    turn_model: str | None = None
    picture_rows: int = 1280
    row_pixels: int = 784
    adapters: tuple[Any, ...] = ()


class FakeReply:
    def __init__(self, reply: int, seq: int) -> None:
        self.id = reply
        self.seq = seq


class FakeStream:
    def __init__(self, engine: FakeEngine, number: int, request: Request) -> None:
        self.id = number
        self.request = request
        self.format = "turns" if request.format == "auto" else request.format
        self.why = "asked for" if request.format != "auto" else "the model is not trained for live"
        self.trained = False
        self.items: list[Item] = []
        self.ended = False
        self.closed = False
        self._engine = engine
        self._seq = itertools.count(1)
        self._numbers = itertools.count(1)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._replies: dict[int, asyncio.Task[None]] = {}
        self._seen: Seen | None = None
        if request.starts and engine.words is not None:
            reply = FakeReply(next(engine.reply_numbers), next(self._seq))
            task = asyncio.create_task(self._speak(reply, len(engine.words)), name=f"fake reply {reply.id}")
            self._replies[reply.id] = task
        self._asked = int(request.starts)  # the newest input that asks for a reply
        self._cut = 0  # a reply to an input up to this number is cut as it begins

    def emit(self, event: Event) -> None:
        """Send an event to the consumer, numbered."""
        self._events.put_nowait(msgspec.structs.replace(event, number=next(self._numbers)))

    async def append(self, item: Item) -> int:
        if self.closed:
            raise StreamClosedError(f"stream {self.id} is closed")
        if self._engine.hold_append is not None:
            await self._engine.hold_append.wait()
        if self._engine.refuse is not None:
            self._engine.refuse(item)
        seq = next(self._seq)
        self.items.append(item)
        pts_us = None if isinstance(item, Text) else item.pts_us
        modality = type(item).__struct_config__.tag
        if not isinstance(item, VideoBytes) or len(item.data):
            self._seen = Seen(seq, str(modality), pts_us, pts_us)
            self.emit(Appended(seq, str(modality), pts_us, pts_us, 0, 1, 0))
        return seq

    async def ask(self, question: str = "", params: SamplingParams | None = None, **_: Any) -> FakeReply:
        if self.closed:
            raise StreamClosedError(f"stream {self.id} is closed")
        reply = FakeReply(next(self._engine.reply_numbers), next(self._seq))
        self._asked = reply.seq
        if self._engine.hold_ask is not None:
            await self._engine.hold_ask.wait()
        count = params.max_tokens if params is not None else self._engine.tokens
        task = asyncio.create_task(self._speak(reply, count), name=f"fake reply {reply.id}")
        self._replies[reply.id] = task
        return reply

    async def _speak(self, reply: FakeReply, count: int) -> None:
        self.emit(ReplyStarted(reply.id, reply.seq))
        said, reason = 0, "length"
        if reply.seq <= self._cut:  # it was interrupted before it began
            count, reason, self._cut = 0, "interrupted", 0
        try:
            for index in range(count):
                if self._engine.gate is not None:
                    await self._engine.gate.acquire()
                else:
                    await asyncio.sleep(0)
                words = self._engine.words
                text = f"w{index} " if words is None else words[index]
                self.emit(Token(reply.id, index, 100 + index, text, self._seen))
                said += 1
        except asyncio.CancelledError:
            reason = "interrupted"
        self.emit(ReplyDone(reply.id, "stop" if reason == "length" and self._engine.words else reason, said, rows=7))
        del self._replies[reply.id]

    async def interrupt(self, at: int | None = None) -> None:
        if not self._replies:
            self._cut = self._asked
        await self._stop_replies()

    async def end(self) -> None:
        self.ended = True

    async def fork(self, again: SamplingParams | None = None, **back: int | None) -> FakeStream:
        copy = await self._engine.stream(self.request)
        copy.items = list(self.items)
        return copy

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self._stop_replies()
            self._engine.open.discard(self)
            self.finish("closed")

    def finish(self, reason: str) -> None:
        """End the stream from the engine's side."""
        self.emit(Closed(reason))
        self._events.put_nowait(None)

    def fail(self, message: str) -> None:
        """Die as a stream whose engine has died."""
        self.closed = True
        self._engine.open.discard(self)
        self.emit(Error("internal", message, None, True))
        self.finish("error")

    async def _stop_replies(self) -> None:
        for task in list(self._replies.values()):
            await asyncio.sleep(0)  # A task that has never run would not see its cancellation.
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._events.get()
        if event is None:
            raise StopAsyncIteration
        if self._engine.break_events:
            raise RuntimeError("secret of the server")
        return event


class FakeEngine:
    def __init__(self, *, tokens: int = 3) -> None:
        self.info = FakeInfo()
        self.ready = True
        self.failed: BaseException | None = None
        self._broke = asyncio.Event()
        self.tokens = tokens
        self.gate: asyncio.Semaphore | None = None  # One token a permit.
        self.hold_open: asyncio.Event | None = None  # Streams wait for it to open.
        self.hold_append: asyncio.Event | None = None  # Appends wait for it.
        self.hold_ask: asyncio.Event | None = None  # Replies wait for it to begin; so do their questions.
        self.refuse: Callable[[Item], None] | None = None  # May raise.
        self.break_events = False
        self.words: list[str] | None = None  # What is said to a request's own prompt; None: nothing.
        self.reply_numbers = itertools.count(1)
        self.streams: list[FakeStream] = []
        self.open: set[FakeStream] = set()

    async def stream(self, request: Request = DEFAULTS) -> FakeStream:
        if request.system == "refuse me":
            raise InputError("system: expected something else, got 'refuse me'")
        if self.failed is not None:
            raise StreamClosedError("the engine has failed")
        if self.hold_open is not None:
            await self.hold_open.wait()
        stream = FakeStream(self, len(self.streams) + 1, request)
        self.streams.append(stream)
        self.open.add(stream)
        return stream

    def fail(self, error: BaseException) -> None:
        """Die of `error`, and all streams with it."""
        self.ready, self.failed = False, error
        for stream in list(self.open):
            stream.fail("the engine has failed")
            for task in stream._replies.values():
                task.cancel()
        self._broke.set()

    async def until_failed(self) -> BaseException:
        await self._broke.wait()
        assert self.failed is not None
        return self.failed

    async def close(self) -> None:
        for stream in list(self.open):
            await stream.close()

    def statistics(self) -> dict[str, Any]:
        return {"streams": len(self.open)}
