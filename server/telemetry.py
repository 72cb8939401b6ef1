"""OpenTelemetry traces of replies: one span for each reply, with what was done for it in the four actors beneath it.

In come the messages between the actors, as an engine's observer is told them; out go spans to a tracer. The actors know
nothing of it. No span has words or media. `exported` is what `penstock serve --otel` uses.

A span has the name `chat MODEL` and the attributes of OpenTelemetry's conventions for generative AI. Beneath it:

decode, encode   of each piece of media that came for it. What came before the question begins before the reply's span.
schedule         from the question to the first step for it
prefill          from there to the first token
generate         from there to its end
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from ..actors import messages as m
from ..engine.command import Accept, Fork, LaidOut, Open, PromptInput, Question, Spans, Thaw
from ..engine.plan import Plan
from ..streams.event import Closed, Error, Event, ReplyDone, ReplyStarted, Token
from ..streams.requests.request import SamplingParams
from ..streams.segment import DroppedSegment, TurnEnd
from .errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

# Pieces of work that are kept until a reply begins, and that one reply has; questions and inputs of a stream at once.
_BEFORE, _MOST, _OPEN = 32, 64, 4096
_NUMBERS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")

# The headers `traceparent` and `tracestate` of the request for which streams are opened here: its span is the parent of
# their replies.
CALLER: ContextVar[dict[str, str] | None] = ContextVar("caller", default=None)


def caller_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What these headers say of the span that calls."""
    return {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}


class _Work(NamedTuple):
    """Something that was done, from when to when in nanoseconds since 1970."""

    name: str
    start: int
    stop: int
    attributes: dict[str, Any]


class _Spoken:
    """A reply that runs, and its span."""

    def __init__(self, span: Span, context: Context, asked: int) -> None:
        self.span, self.context, self.asked = span, context, asked
        self.fed = self.first = 0  # when the first step for it was planned, and when its first token came; 0: not yet
        self.tokens = self.pieces = 0


class _StreamTimes:
    """What is known of one stream."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self.caller = CALLER.get()
        self.asked: dict[int, tuple[int, SamplingParams]] = {}  # by input
        self.decoding: dict[int, int] = {}  # since when, by input
        self.encoding: dict[tuple[int, int], int] = {}  # the same by input and segment; a prompt's is -1
        self.work: deque[_Work] = deque(maxlen=_BEFORE)  # for the next reply
        self.replies: dict[int, _Spoken] = {}
        self.fault = ""  # the code of the error that ends it


class Telemetry:
    """Turns messages into spans, from `begin` on."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._propagator = TraceContextTextMapPropagator()
        self._tracer = tracer
        self._model = ""
        self._streams: dict[int, _StreamTimes] = {}
        self._unfed: dict[int, _Spoken] = {}  # by stream: replies for which no step has been planned
        self._handlers: dict[type, Callable[[str, Any], None]] = {
            Open: self._opened,
            Fork: self._forked,
            Thaw: self._thawed,
            Accept: self._accepted,
            m.Take: self._handed,
            m.Flush: self._handed,
            m.Converse: self._conversed,
            m.Segments: self._decoded,
            m.Grant: self._granted,
            Spans: self._encoded,
            LaidOut: self._laid_out,
            Plan: self._planned,
            m.Tell: self._told,
        }

    def begin(self, model: str) -> None:
        """From here on there are spans: before, the engine warms up."""
        self._model = model

    def put(self, mailbox: str, lane: str, message: Any) -> None:
        """The engine's observer."""
        handler = self._handlers.get(type(message))
        if handler is not None and self._model:
            handler(mailbox, message)

    # Streams and questions.

    def _opened(self, mailbox: str, message: Open) -> None:
        if mailbox == "decode":
            self._streams[message.stream] = _StreamTimes(message.request.params)

    def _forked(self, mailbox: str, message: Fork) -> None:
        if mailbox == "decode" and message.stream in self._streams:
            self._streams[message.twin] = _StreamTimes(message.again or self._streams[message.stream].params)

    def _thawed(self, mailbox: str, message: Thaw) -> None:
        if mailbox == "decode":
            self._streams[message.stream] = _StreamTimes(message.frozen.request.params)

    def _accepted(self, mailbox: str, message: Accept) -> None:
        times, input = self._streams.get(message.stream), message.input
        if times is not None and isinstance(input, Question | PromptInput):
            _put(times.asked, input.seq, (time.time_ns(), input.params or times.params))

    # What decode and encode do.

    def _handed(self, mailbox: str, message: m.Take | m.Flush) -> None:
        if (times := self._streams.get(message.stream)) is not None:
            _put(times.decoding, message.seq, time.time_ns())

    def _conversed(self, mailbox: str, message: m.Converse) -> None:
        times, now = self._streams.get(message.stream), time.time_ns()
        if times is None:
            return
        if mailbox == "decode":
            _put(times.decoding, message.seq, now)
            return
        attributes = {"penstock.input": message.seq, "penstock.modality": "prompt"}
        self._done(times, _Work("decode", times.decoding.pop(message.seq, now), now, attributes))
        _put(times.encoding, (message.seq, -1), now)

    def _decoded(self, mailbox: str, message: m.Segments) -> None:
        times, now = self._streams.get(message.stream), time.time_ns()
        if times is None or message.seq not in times.decoding:
            return
        for segment in message.segments:
            if not isinstance(segment, DroppedSegment | TurnEnd):
                modality = type(segment).__name__.removesuffix("Segment").lower()
                attributes = {"penstock.input": message.seq, "penstock.modality": modality}
                self._done(times, _Work("decode", times.decoding[message.seq], now, attributes))
                times.decoding[message.seq] = now
        if message.last:
            del times.decoding[message.seq]

    def _granted(self, mailbox: str, message: m.Grant) -> None:
        for stream, seq, index in message.segments:
            if stream in self._streams:
                _put(self._streams[stream].encoding, (seq, index), time.time_ns())

    def _encoded(self, mailbox: str, message: Spans) -> None:
        times, now = self._streams.get(message.stream), time.time_ns()
        if times is None:
            return
        for span in message.spans:
            if (start := times.encoding.pop((span.seq, span.index), None)) is not None:
                attributes = {
                    "penstock.input": span.seq,
                    "penstock.modality": span.modality,
                    "penstock.rows": len(span.ids),
                }
                self._done(times, _Work("encode", start, now, attributes))

    def _laid_out(self, mailbox: str, message: LaidOut) -> None:
        times, now = self._streams.get(message.stream), time.time_ns()
        if times is not None and (start := times.encoding.pop((message.seq, -1), None)) is not None:
            rows = sum(map(len, message.prompt.rows))
            attributes = {"penstock.input": message.seq, "penstock.modality": "prompt", "penstock.rows": rows}
            self._done(times, _Work("encode", start, now, attributes))

    def _done(self, times: _StreamTimes, work: _Work) -> None:
        """Beneath the reply that runs, else beneath the next one."""
        for reply in times.replies.values():
            if reply.pieces < _MOST:
                reply.pieces += 1
                self._beneath(reply, work)
            return
        times.work.append(work)

    # Replies.

    def _planned(self, mailbox: str, message: Plan) -> None:
        if self._unfed:
            for feed in message.feeds:
                if feed.stream in self._unfed:
                    self._unfed.pop(feed.stream).fed = time.time_ns()

    def _told(self, mailbox: str, message: m.Tell) -> None:
        times = self._streams.get(message.stream)
        if times is not None:
            for event in message.events:
                self._happened(message.stream, times, event)

    def _happened(self, stream: int, times: _StreamTimes, event: Event) -> None:
        match event:
            case Token() if event.reply in times.replies:
                reply = times.replies[event.reply]
                reply.tokens = event.index + 1
                if not reply.first:
                    reply.first = time.time_ns()
                    reply.span.add_event("first token", timestamp=reply.first)
            case ReplyStarted():
                self._starts(stream, times, event)
            case ReplyDone() if event.reply in times.replies:
                reply = times.replies.pop(event.reply)
                reply.span.set_attribute("gen_ai.usage.input_tokens", event.rows)
                reply.span.set_attribute("gen_ai.usage.cache_read.input_tokens", event.cached)
                reply.tokens = event.tokens
                self._ends(stream, reply, event.reason, times.fault)
                times.fault = ""
            case Error():
                times.fault = event.code
                if event.seq in times.asked:
                    asked, params = times.asked.pop(event.seq)
                    span, _ = self._span(stream, asked, params, {"penstock.input": event.seq})
                    self._fails(span, event.code)
                    span.end()
            case Closed():
                for reply in times.replies.values():
                    self._ends(stream, reply, "interrupted" if event.reason == "closed" else "error", times.fault)
                del self._streams[stream]

    def _starts(self, stream: int, times: _StreamTimes, event: ReplyStarted) -> None:
        asked, params = times.asked.pop(event.seq, (time.time_ns(), times.params))
        named = {"penstock.input": event.seq, "penstock.reply": event.reply}
        reply = times.replies[event.reply] = _Spoken(*self._span(stream, asked, params, named), asked)
        self._unfed[stream] = reply
        times.fault = ""
        for work in times.work:
            self._beneath(reply, work)
        times.work.clear()

    def _span(self, stream: int, asked: int, params: SamplingParams, named: dict[str, int]) -> tuple[Span, Context]:
        numbers = {f"gen_ai.request.{name}": getattr(params, name) for name in _NUMBERS}
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "penstock",
            "gen_ai.request.model": self._model,
            "gen_ai.request.stream": True,
            **{name: number for name, number in numbers.items() if number is not None},
            "penstock.stream": stream,
            **named,
        }
        times = self._streams[stream]
        span = self._tracer.start_span(
            f"chat {self._model}",
            self._propagator.extract(times.caller) if times.caller else None,
            kind=self._api.SpanKind.SERVER,
            attributes=attributes,
            start_time=asked,
        )
        return span, self._api.set_span_in_context(span)

    def _beneath(self, reply: _Spoken, work: _Work) -> None:
        span = self._tracer.start_span(work.name, reply.context, attributes=work.attributes, start_time=work.start)
        span.end(work.stop)

    def _ends(self, stream: int, reply: _Spoken, reason: str, fault: str) -> None:
        now, span = time.time_ns(), reply.span
        if self._unfed.get(stream) is reply:
            del self._unfed[stream]
        fed, first = reply.fed or now, reply.first or now
        self._beneath(reply, _Work("schedule", reply.asked, fed, {}))
        if reply.fed:
            self._beneath(reply, _Work("prefill", fed, first, {}))
        if reply.first:
            self._beneath(reply, _Work("generate", first, now, {"penstock.tokens": reply.tokens}))
            span.set_attribute("gen_ai.response.time_to_first_chunk", (first - reply.asked) / 1e9)
        span.set_attribute("gen_ai.usage.output_tokens", reply.tokens)
        span.set_attribute("gen_ai.response.finish_reasons", [reason])
        if reason == "error":
            self._fails(span, fault or "_OTHER")
        span.end(now)

    def _fails(self, span: Span, code: str) -> None:
        span.set_attribute("error.type", code)
        span.set_status(self._api.StatusCode.ERROR)


def _put(known: dict[Any, Any], key: Any, value: Any) -> None:
    """What never comes to an end goes when there is too much of it, the oldest first."""
    known[key] = value
    if len(known) > _OPEN:
        del known[next(iter(known))]


@contextmanager
def exported() -> Iterator[Telemetry]:
    """Spans go to the collector that the environment names (OTEL_EXPORTER_OTLP_ENDPOINT and others); at the end the
    last ones are sent. ConfigError where OpenTelemetry is not installed."""
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter()
    except ImportError:
        raise ConfigError('--otel: expected OpenTelemetry: pip install "penstock[otel]"') from None
    said = "OTEL_SERVICE_NAME" in os.environ or SERVICE_NAME in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create(None if said else {SERVICE_NAME: "penstock"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Telemetry(provider.get_tracer("penstock"))
    finally:
        provider.shutdown()
