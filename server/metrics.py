"""What a server counts of its clients' streams, for `/metrics`: connections, replies, tokens, media, and how long they
took. Knows prometheus-client; the engine's own figures are in `engine_metrics.py`.

Every count belongs to one server: there is no global registry. No label holds a client's words or a stream's number, so
the number of time series does not grow with the clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ..streams.event import Appended, Dropped, Error, Event, Evicted, ReplyDone, ReplyStarted, Resting, Token

_SHORT = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0)
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_WHOLE = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)


class Meter:
    """The counts of one server. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.registry = registry = CollectorRegistry(auto_describe=True)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

        def counter(name: str, what: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(f"penstock_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(f"penstock_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...], labels: Iterable[str] = ()) -> Histogram:
            return Histogram(f"penstock_{name}_seconds", what, labels, buckets=buckets, registry=registry)

        self.connections = gauge("connections", "Open WebSockets, and requests that are answered.", ["door"])
        self.connected = counter("connections_opened", "WebSockets that were opened, and requests that came.", ["door"])
        self.resumed = counter("connections_resumed", "Lost connections that their clients went on with.")
        self.handshakes_refused = counter("handshakes_refused", "WebSockets that were refused, by status.", ["status"])
        self.streams = gauge("streams", "Open streams of clients.")
        self.streams_ended = counter("streams_ended", "Streams that have ended, by reason.", ["reason"])
        self.running = gauge("requests_running", "Replies that run.")
        self.waiting = gauge("requests_waiting", "Questions that wait for their reply to begin.")
        self.requests = counter("requests", "Replies that have ended, by reason.", ["finished_reason"])
        self.tokens = counter("generation_tokens", "Tokens of replies.")
        self.rows = counter("media_rows", "Rows of media that went into the KV cache.", ["modality"])
        self.pieces = counter("media_pieces", "Pieces of media that went into the KV cache.", ["modality"])
        self.overdue = counter("media_deadline_misses", "Pieces of media that came after their deadline.", ["modality"])
        self.dropped = counter("media_dropped", "Media that the model never saw.", ["modality", "reason"])
        self.evicted = counter("rows_evicted", "Rows that have left the windows of streams.")
        self.key_bytes = counter("key_media_bytes", "Bytes of media that the clients of a key handed in.", ["key"])
        self.key_tokens = counter("key_tokens", "Tokens of replies and rows of media of the clients of a key.", ["key"])
        self.key_rows = counter(
            "key_rows", "Rows that were computed for the streams of a key that have ended.", ["key", "modality"]
        )
        self.key_encode = counter(
            "key_encode_seconds", "Seconds that the towers worked for the streams of a key that have ended.", ["key"]
        )
        self.key_steps = counter(
            "key_step_seconds", "The part of the steps' time of the streams of a key that have ended.", ["key"]
        )
        self.errors = counter("errors", "Errors that clients were told of, by code.", ["code"])
        self.first_token = histogram("time_to_first_token", "From a question to the first token of its reply.", _LONG)
        self.between = histogram("inter_token_latency", "Between two tokens of a reply that does not rest.", _SHORT)
        self.whole = histogram("e2e_request_latency", "From a question to the end of its reply.", _WHOLE)
        self.lag = histogram("media_lag", "From when media is handed in until it is in the KV cache.", _LONG)
        self.age = histogram("token_media_age", "How old the newest media is that a token could see.", _LONG)
        self.tasks = gauge("tasks", "Tasks that serve clients, and the server's own.")
        self.reach = gauge("window_reach_seconds", "Seconds of media in a stream's window.", ["of"])
        self._open: dict[StreamMeter, None] = {}

    def add(self, collector: Collector) -> None:
        """Tell the figures of this collector as well."""
        self.registry.register(collector)

    def stream(self) -> StreamMeter:
        """The counts of a stream that has been opened; to be ended with `StreamMeter.end`."""
        meter = StreamMeter(self)
        self._open[meter] = None
        self.streams.set(len(self._open))
        return meter

    def ended(self, stream: StreamMeter, reason: str) -> None:
        """A stream has ended."""
        self._open.pop(stream, None)
        self.streams.set(len(self._open))
        self.streams_ended.labels(reason).inc()

    def text(self) -> bytes:
        """All figures as they are now, in the text format of Prometheus."""
        reaches = [reach for stream in self._open if (reach := stream.reach) is not None]
        self.reach.clear()
        if reaches:
            self.reach.labels("the shortest").set(min(reaches))
            self.reach.labels("the longest").set(max(reaches))
        return generate_latest(self.registry)


class _ReplyTimes:
    """When a reply was asked for, began to speak, and said its newest token; None: not yet, or it rests."""

    def __init__(self) -> None:
        self.asked: float | None = None
        self.first: float | None = None
        self.newest: float | None = None


class StreamMeter:
    """What is counted of one stream. What it keeps does not grow: times of the replies that run."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._times: dict[int, _ReplyTimes] = {}
        self._running: set[int] = set()
        self._prompted: float | None = None  # when its prompt came, which has no reply yet
        self._newest_us: int | None = None  # until when media is in the cache
        self._since_us: int | None = None  # since when: all before it has left, or the beginning

    @property
    def reach(self) -> float | None:
        """Seconds of media between what left last, or the beginning, and the newest; None without media."""
        if self._newest_us is None or self._since_us is None:
            return None
        return max(0, self._newest_us - self._since_us) / 1_000_000

    def asked(self, reply: int, at: float) -> None:
        """A question was handed in at `at`, which this reply answers; it may have begun to speak."""
        times = self._times.setdefault(reply, _ReplyTimes())
        times.asked = at
        if times.first is not None:
            self._meter.first_token.observe(times.first - at)

    def prompted(self, at: float) -> None:
        """It has a prompt that was handed in at `at`, which its next reply answers."""
        self._prompted = at
        self._meter.waiting.inc()

    def note(self, event: Event) -> None:
        """Count an event of the stream, as it comes."""
        meter = self._meter
        match event:
            case Token():
                self._speaks(event, meter.clock())
            case Appended():
                self._appended(event)
            case ReplyStarted():
                prompted = self._waits_no_more()
                if prompted is not None:
                    self.asked(event.reply, prompted)
                self._running.add(event.reply)
                meter.running.inc()
            case Resting():
                self._times.setdefault(event.reply, _ReplyTimes()).newest = None
            case ReplyDone():
                self._done(event)
            case Dropped():
                meter.dropped.labels(event.modality, event.reason).inc(event.count)
            case Evicted():
                meter.evicted.inc(event.rows)
                self._since_us = event.stop_us if event.stop_us is not None else self._since_us
            case Error():
                if event.seq in (None, 1):  # the prompt's number
                    self._waits_no_more()
                meter.errors.labels(event.code).inc()

    def end(self, reason: str) -> None:
        """The stream has ended; its replies with it."""
        self._waits_no_more()
        self._meter.running.dec(len(self._running))
        self._running.clear()
        self._times.clear()
        self._meter.ended(self, reason)

    def _waits_no_more(self) -> float | None:
        """When the prompt came, if it was without a reply."""
        prompted, self._prompted = self._prompted, None
        if prompted is not None:
            self._meter.waiting.dec()
        return prompted

    def _speaks(self, event: Token, now: float) -> None:
        meter, times = self._meter, self._times.setdefault(event.reply, _ReplyTimes())
        meter.tokens.inc()
        if times.first is None:
            times.first = now
            if times.asked is not None:
                meter.first_token.observe(now - times.asked)
        elif times.newest is not None:
            meter.between.observe(now - times.newest)
        times.newest = now
        if event.age_us is not None:
            meter.age.observe(event.age_us / 1_000_000)

    def _appended(self, event: Appended) -> None:
        meter, modality = self._meter, event.modality
        meter.pieces.labels(modality).inc()
        meter.rows.labels(modality).inc(event.rows)
        if event.lag_us is not None:
            meter.lag.observe(event.lag_us / 1_000_000)
        if event.overdue_us > 0:
            meter.overdue.labels(modality).inc()
        if self._since_us is None:
            self._since_us = event.start_us
        if event.stop_us is not None:
            self._newest_us = max(event.stop_us, self._newest_us or 0)

    def _done(self, event: ReplyDone) -> None:
        meter, times = self._meter, self._times.pop(event.reply, None)
        meter.requests.labels(event.reason).inc()
        if event.reply in self._running:
            self._running.discard(event.reply)
            meter.running.dec()
        if times is not None and times.asked is not None:
            meter.whole.observe(meter.clock() - times.asked)
