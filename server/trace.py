"""`penstock trace`: the way of one frame from socket to token, message by message.

Starts an engine and a server in this process, sends a frame pair and a question over a WebSocket, and shows each
message as it is put into a mailbox, until the first tokens are back at the client. In come options; out go lines on
stdout. Knows the messages by name and by shape; changes none.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from ..actors import messages as m
from ..actors.engine import Engine
from ..actors.lookback import Clip
from ..engine.command import Accept, Open, Spans
from ..engine.plan import Plan, Result
from ..streams.event import Appended, Event, ReplyDone, Token
from ..streams.item import VideoFrame
from ..streams.requests.request import Request, SamplingParams
from ..streams.segment import DroppedSegment
from . import wire
from .app import bind, new_loop, serve
from .client import Connection
from .client_stream import ClientStream
from .config import ServerConfig

STEP_US = 500_000  # Between the frames of the pair: 2 frames a second.
SIDE = 84


class Line(msgspec.Struct, frozen=True):
    """One message: when it was put (`ms` after the first), where (`mailbox` "socket": the wire), and what it is.

    `lane` is "data" or "control", at the socket "in" or "out". `seq` is the newest input that it is about.
    """

    ms: float
    mailbox: str
    lane: str
    type: str
    stream: int | None
    seq: int | None
    summary: str


class Trace:
    """Makes lines of messages, from `begin` until the client has been told the end of a reply."""

    def __init__(self, show: Callable[[Line], None]) -> None:
        self._show = show
        self._began: float | None = None

    def begin(self) -> None:
        """From here on lines are shown; time starts with the first."""
        self._began = 0.0

    def put(self, mailbox: str, lane: str, message: Any) -> None:
        """A message was put; the engine's observer."""
        self._line(
            mailbox, lane, type(message).__name__, getattr(message, "stream", None), _seq(message), says(message)
        )

    def sent(self, frame: str | bytes) -> None:
        """The client has sent this."""
        binary = isinstance(frame, bytes)
        command = wire.decode_binary(frame) if binary else wire.decode_text(frame)
        kind = type(command.item if isinstance(command, wire.Input) else command).__name__
        self._line("socket", "in", kind, None, None, f"{'binary' if binary else 'text'}, {len(frame)} bytes")

    def heard(self, event: Event) -> None:
        """The client has been told this."""
        seen = event.seen if isinstance(event, Token) else None
        summary = f"{event.text!r}, has seen input {seen and seen.seq}" if isinstance(event, Token) else _short(event)
        self._line("socket", "out", type(event).__name__, None, getattr(event, "seq", seen and seen.seq), summary)
        if isinstance(event, ReplyDone):
            self._began = None

    def _line(self, mailbox: str, lane: str, kind: str, stream: int | None, seq: int | None, summary: str) -> None:
        if self._began is None:
            return
        now = time.perf_counter()
        self._began = self._began or now
        self._show(Line(round((now - self._began) * 1000, 3), mailbox, lane, kind, stream, seq, summary))


class _Traced(Connection):
    """A client whose frames are shown as it sends them."""

    def __init__(self, url: str, trace: Trace) -> None:
        super().__init__(url)
        self._trace = trace

    async def send(self, frame: str | bytes) -> int:
        self._trace.sent(frame)
        return await super().send(frame)


async def run(model: str | None, tokens: int, show: Callable[[Line], None]) -> None:
    """Trace one frame pair and a question whose reply has `tokens` tokens. PenstockError where something is refused."""
    params = SamplingParams(max_tokens=tokens)
    params.check()
    trace = Trace(show)
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    config = ServerConfig(port=0)
    async with await Engine.load(model, observer=trace.put) as engine:
        with bind(config) as listener:
            server = asyncio.create_task(
                serve(engine, config, listener=listener, on_listening=listening.set_result), name="traced server"
            )
            try:
                await _talk(await listening, trace, params)
            finally:
                server.cancel()
                await asyncio.wait([server])


async def _talk(url: str, trace: Trace, params: SamplingParams) -> None:
    rows, columns = np.indices((SIDE, SIDE))
    async with _Traced(url, trace) as connection:
        trace.begin()
        stream = await connection.stream(Request(format="live"))
        listening = asyncio.create_task(_listen(stream, trace), name="traced events")
        try:
            for number in range(2):
                pixels = np.stack([rows * 3, columns * 3, rows * 0 + 100 * number], axis=-1).astype(np.uint8)
                await stream.append(VideoFrame(pixels, number * STEP_US))
            await (await stream.ask("What is there?", params)).text()
            await listening
        finally:
            listening.cancel()
            await asyncio.wait([listening])
            await stream.close()


async def _listen(stream: ClientStream, trace: Trace) -> None:
    async for event in stream:
        trace.heard(event)
        if isinstance(event, ReplyDone):
            return


def says(message: Any) -> str:
    """A message in a few words: sizes and numbers, never pixels or words."""
    match message:
        case Open():
            return f"format {message.request.format}, policy {message.request.policy}"
        case m.Take(item=Clip(items=items)):
            return f"Clip, {len(items)} items of before"
        case m.Take(item=item):
            return f"{type(item).__name__}, {len(getattr(item, 'data', ''))} bytes"
        case m.Segments(segments=segments, last=last):
            return ", ".join([_segment(segment) for segment in segments] + ["no more"] * last)
        case m.Announce(sizes=sizes):
            return ", ".join(f"{size[3]}: {size[1]} rows" for size in sizes)
        case m.Grant(segments=keys) | m.Discard(segments=keys):
            return f"(stream, input, segment) {', '.join(map(str, keys))}"
        case Spans(spans=spans):
            return ", ".join(f"{len(span.ids)} rows" for span in spans)
        case m.Encoded():
            return f"{message.bytes} bytes"
        case Accept(input=input):
            text = getattr(input, "text", "")
            return f"{input.event}{f', {len(text)} characters' if text else ''}"
        case m.Notice(event=event):
            return _short(event)
        case Plan():
            return _plan(message)
        case Result():
            return f"step {message.number}: {len(message.tokens)} tokens"
        case m.Tell():
            done = [f"input {seq} done" for seq in message.resolved]
            return ", ".join([*map(_short, message.events), *done]) or "opened"
    return ""


def _seq(message: Any) -> int | None:
    match message:
        case m.Grant(segments=[*_, (_, seq, _)]) | m.Discard(segments=[*_, (_, seq, _)]):
            return seq
        case Spans(spans=[*_, span]):
            return span.seq
        case Accept(input=input):
            return input.seq
        case Plan():
            seen = [rows.seen.seq for feed in message.feeds for rows in feed.rows if rows.seen is not None]
            return max(seen, default=None)
        case m.Tell():
            told = [getattr(event, "seq", None) for event in message.events]
            return max([seq for seq in told if seq is not None], default=None)
    return getattr(message, "seq", None)


def _plan(plan: Plan) -> str:
    parts = [f"step {plan.number}:"]
    for feed in plan.feeds:
        media = sum(len(rows) for rows in feed.rows if rows.seen is not None)
        rows = sum(len(rows) for rows in feed.rows)
        parts.append(f"{rows} rows ({media} of media) at {feed.first}{', draws' if feed.draw else ''}")
    return " ".join(parts)


def _segment(segment: Any) -> str:
    if isinstance(segment, DroppedSegment):
        return f"dropped {type(segment.piece).__name__}"
    data = getattr(segment, "pixels", None)
    return f"{type(segment).__name__} {_shape(segment.samples if data is None else data)}"


def _shape(array: Any) -> str:
    return f"{tuple(array.shape)} {str(array.dtype).removeprefix('torch.')}"


def _short(event: Event) -> str:
    match event:
        case Token():
            return f"Token {event.index}"
        case ReplyDone():
            return f"ReplyDone {event.reason}"
        case Appended():
            return f"Appended {event.rows} rows"
    return type(event).__name__


def main(options: argparse.Namespace) -> int:
    """Trace, as a table or as one JSON object a line."""
    if not options.json:
        print(f"{'ms':>8}  {'to':8} {'lane':7} {'message':12} {'input':>5}  what", flush=True)

    def show(line: Line) -> None:
        if options.json:
            print(msgspec.json.encode(line).decode(), flush=True)
            return
        seq = "" if line.seq is None else line.seq
        print(f"{line.ms:8.2f}  {line.mailbox:8} {line.lane:7} {line.type:12} {seq:>5}  {line.summary}".rstrip())

    logging.basicConfig(level=logging.ERROR)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run(options.model, options.tokens, show))
    return 0
