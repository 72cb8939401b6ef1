"""Which segments the encoder begins next, and which of a live source are dropped. Times come from the caller.

A segment is announced, and waits until it is granted or dropped. A stream's own segments stay in order; of several
streams goes first what is due first. A segment is due when its media time comes round, and has its deadline one
interval later. How much time is left until then is computed here, for the steps and for the towers.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ...streams.event import Dropped
from ..conversation.state import StreamState
from .pace import Pace
from .policy import grant
from .timeliness import Expected, Timeliness

# Segments of a camera that may wait for the encoder; the oldest go first.
_LATEST_SEGMENTS = 4
# Rows of spans that may wait for their turn before a stream's next segments are encoded.
_AHEAD_ROWS = 4096
# No segment is due later than this from now, whatever its media time says; and times that leap farther, or come so much
# too late, set a stream's clock again.
_FARTHEST_US = 10_000_000
# The interval of a piece that is the first of its kind and has no duration: a picture.
_PICTURE_US = 500_000
# The share of a new measurement in how often pieces come.
_SHARE = 0.2
# What is overdue has to be in the cache so soon.
_AT_ONCE_MS = 1.0

Key = tuple[int, int, int]  # stream, seq, index


class Announced(msgspec.Struct, frozen=True):
    """A segment that waits: how many rows it will have, the media time at which it stops, what its client is told
    where it is dropped, and when its media was handed in. `clip`: of media that came once before, which is never
    dropped, has no deadline and says nothing of how often media comes."""

    key: Key
    rows: int
    stop_us: int | None
    event: Dropped
    arrived_us: int
    clip: bool = False


class Flow(msgspec.Struct, frozen=True):
    """One kind of media of a stream, by its newest piece: when that came, the media time at which it stops, how long
    it is until the next one should come, and its rows. `every_us`: how often pieces come."""

    modality: str
    at_us: int
    stop_us: int | None
    interval_us: int
    rows: int
    every_us: float

    @property
    def rate(self) -> float:
        """Pieces a second, as they come and no more than their media times say."""
        return 1_000_000 / max(1.0, self.interval_us, self.every_us)


class _Queued(msgspec.Struct, frozen=True):
    """A segment that waits, when it is due, and when it should be in the cache."""

    due_us: int
    aim_us: int
    segment: Announced


class Granting:
    """The segments of all `streams` that wait for the encoder. `rows` says how many rows it is given at once. `times`:
    what is measured of them."""

    def __init__(self, streams: Mapping[int, StreamState], rows: Pace) -> None:
        self.times = Timeliness()
        self._streams = streams
        self._rows = rows
        self._waiting: dict[int, deque[_Queued]] = {}
        self._granted: dict[Key, int] = {}  # what the encoder works on, with when that should be in the cache
        self._granted_rows, self._granted_at = 0, 0.0
        self._clocks: dict[int, tuple[int, int]] = {}  # per stream: now minus its media time, and its last, in us
        self._flows: dict[int, dict[str, Flow]] = {}  # per stream and modality

    @property
    def waiting(self) -> int:
        """How many segments wait."""
        return sum(map(len, self._waiting.values()))

    def announce(self, stream: int, segments: Iterable[Announced], now_us: int) -> list[Announced]:
        """These wait now, after those that do. Returns which of the stream's are dropped instead."""
        waiting = self._waiting.setdefault(stream, deque())
        for segment in segments:
            if segment.clip:  # after what is due
                later_us = now_us + _FARTHEST_US
                waiting.append(_Queued(later_us, later_us, segment))
                continue
            piece, event = self._expected(segment, now_us), segment.event
            self.times.expect(stream, (event.seq, event.modality, event.start_us, event.stop_us), piece)
            waiting.append(_Queued(min(piece.due_us, now_us + _FARTHEST_US), piece.aim_us, segment))
        return self._drop_oldest(stream, waiting) if self._is_live(stream) else []

    def grant(self, now: float) -> list[Key]:
        """What the encoder begins at `now`, in seconds; nothing while it is at work."""
        if self._granted:
            return []
        queues = [waiting for stream, waiting in self._waiting.items() if waiting and self.wants_spans(stream)]
        order = list(heapq.merge(*queues, key=lambda queued: queued.due_us))
        count = grant([(queued.due_us, queued.segment.rows) for queued in order], self._rows.rows)
        taken = [self._waiting[queued.segment.key[0]].popleft() for queued in order[:count]]
        self._granted, self._granted_at = {queued.segment.key: queued.aim_us for queued in taken}, now
        self._granted_rows = sum(queued.segment.rows for queued in taken)
        return list(self._granted)

    def encoded(self, keys: set[Key], now: float) -> tuple[int, float] | None:
        """These are encoded; where that is all that was granted, it says how long so many rows take, and returns both,
        in milliseconds."""
        took = None
        if self._granted and self._granted.keys() <= keys:
            took = self._granted_rows, (now - self._granted_at) * 1000
            self._rows.took(*took)
        for key in keys:
            self._granted.pop(key, None)
        return took

    def failed(self, key: Key) -> None:
        """This one could not be encoded."""
        self._granted.pop(key, None)
        self.times.failed(*key)

    def flows(self, now_us: int) -> Iterator[tuple[int, Flow]]:
        """The media that came in the last seconds, with its stream."""
        for stream, flows in self._flows.items():
            for flow in flows.values():
                if flow.at_us > now_us - _FARTHEST_US:
                    yield stream, flow

    def cameras(self, now_us: int) -> list[tuple[int, Flow]]:
        """Of that, what comes at its own pace: media of streams that drop what is old. Other media waits."""
        return [(stream, flow) for stream, flow in self.flows(now_us) if self._is_live(stream)]

    def demand(self, now_us: int) -> tuple[int, float] | None:
        """What live media asks of the steps: the most rows for the time that is left for them, as rows and
        milliseconds; None where none came in the last seconds.

        A stream's rows should be in the cache half an interval before the deadline of its oldest piece.
        """
        live: dict[int, int] = {}
        for stream, flow in self.flows(now_us):
            live[stream] = min(flow.interval_us, live.get(stream, flow.interval_us))
        if not live:
            return None
        total, most, within_ms = 0, 0, min(live.values()) / 2000
        busy = [stream for stream in live if self._streams[stream].rows > self._streams[stream].past]
        for left_ms, rows in sorted(self._left(stream, live[stream], now_us) for stream in busy):
            total += rows
            if total * within_ms > most * left_ms:
                most, within_ms = total, left_ms
        return most, within_ms

    def due_first(self, now_us: int) -> list[int]:
        """The streams with rows to feed whose oldest piece is due, the earliest deadline first."""
        found: list[tuple[int, int]] = []
        for stream in dict.fromkeys(stream for stream, _ in self.flows(now_us)):
            state, piece = self._streams[stream], self.times.first(stream)
            if piece is not None and piece.due_us <= now_us and state.rows > state.past:
                found.append((piece.aim_us, stream))
        return [stream for _, stream in sorted(found)]

    def pressing(self, now: float, now_us: int) -> dict[int, int]:
        """The streams whose next piece the encoder will not have ready half an interval before its deadline, and until
        when a reply of each may wait for it: for one interval after its newest token. `now` in seconds, as for `grant`.
        """
        begins_us = now_us
        if self._granted:
            ends_ms = self._rows.takes_ms(self._granted_rows) - (now - self._granted_at) * 1000
            begins_us += round(max(0.0, ends_ms) * 1000)
        behind = {key[0] for key, aim_us in self._granted.items() if aim_us <= begins_us}
        for stream, waiting in self._waiting.items():
            if waiting and stream not in behind:
                takes_us = round(self._rows.takes_ms(waiting[0].segment.rows) * 1000)
                if waiting[0].aim_us <= begins_us + takes_us and self.wants_spans(stream):
                    behind.add(stream)
        return {stream: self.times.spoke_us(stream) + self._interval_us(stream) for stream in behind}

    def begin(self, stream: int) -> None:
        """A stream is open."""
        self.times.begin(stream)

    def fork(self, stream: int, twin: int) -> None:
        """The twin's media goes on in the stream's times, and is as live."""
        self.times.fork(stream, twin)
        if stream in self._clocks:
            self._clocks[twin] = self._clocks[stream]
        if stream in self._flows:
            self._flows[twin] = dict(self._flows[stream])

    def forget(self, stream: int) -> None:
        """A stream has ended."""
        self._waiting.pop(stream, None)
        self._granted = {key: aim for key, aim in self._granted.items() if key[0] != stream}
        self._clocks.pop(stream, None)
        self._flows.pop(stream, None)
        self.times.forget(stream)

    def due(self, stream: int, stop_us: int, arrived_us: int) -> int:
        """When a segment is due that came at `arrived_us`: then, or later, when its media time comes round on the
        stream's clock, which its first segment sets. A stream that was quiet for long, or whose times begin again
        elsewhere, owes nothing of before."""
        clock_us, last_us = self._clocks.get(stream, (arrived_us - stop_us, stop_us))
        if clock_us + stop_us < arrived_us - _FARTHEST_US or abs(stop_us - last_us) > _FARTHEST_US:
            clock_us = arrived_us - stop_us
        self._clocks[stream] = clock_us, stop_us
        return max(arrived_us, clock_us + stop_us)

    def _expected(self, segment: Announced, now_us: int) -> Expected:
        """What is expected of a segment. Its interval is the time since the one of its kind before, but no more than
        twice that one's, as after a gap; without one before it is what it lasts."""
        (stream, _, index), event, stop_us = segment.key, segment.event, segment.stop_us
        due_us = segment.arrived_us if stop_us is None else self.due(stream, stop_us, segment.arrived_us)
        flows = self._flows.setdefault(stream, {})
        before = flows.get(event.modality)
        since_us = 0 if stop_us is None or before is None or before.stop_us is None else stop_us - before.stop_us
        lasts_us = 0 if stop_us is None or event.start_us is None else stop_us - event.start_us
        usual_us = lasts_us or _PICTURE_US if before is None else before.interval_us
        interval_us = min(since_us, 2 * usual_us) if 0 < since_us <= _FARTHEST_US else lasts_us or usual_us
        every_us = float(interval_us)
        if before is not None:
            every_us = before.every_us + _SHARE * (min(now_us - before.at_us, _FARTHEST_US) - before.every_us)
        flows[event.modality] = Flow(event.modality, now_us, stop_us, interval_us, segment.rows, every_us)
        return Expected(index, segment.arrived_us, due_us, interval_us)

    def _interval_us(self, stream: int) -> int:
        flows = self._flows.get(stream, {})
        return min((flow.interval_us for flow in flows.values()), default=_PICTURE_US)

    def _left(self, stream: int, interval_us: int, now_us: int) -> tuple[float, int]:
        """How many milliseconds there are for the rows of a stream that wait to be fed, and how many these are."""
        state, piece, left_us = self._streams[stream], self.times.first(stream), interval_us / 2
        if piece is not None:
            left_us = min(left_us, piece.aim_us - now_us)
        return max(_AT_ONCE_MS, left_us / 1000), state.rows - state.past

    def wants_spans(self, stream: int) -> bool:
        """Whether the encoder may begin for this stream: it is not parked, and few rows of it wait. For a live camera
        whose pictures go in only where the reply rests, none may wait."""
        state = self._streams[stream]
        rows = sum(len(span.ids) for input in state.inputs for span in input.spans)
        fresh = self._is_live(stream) and (state.layout.format.rests or self._speaks(stream))
        rests = state.reply is not None and state.reply.life.rests
        ahead = 1 if fresh else _AHEAD_ROWS - (state.rows - state.past)
        return not state.parked and (rests or rows < ahead)

    def _is_live(self, stream: int) -> bool:
        return self._streams[stream].request.policy == "latest"

    def _speaks(self, stream: int) -> bool:
        """A reply runs that media has to wait for."""
        state = self._streams[stream]
        format, reply = state.layout.format, state.reply
        return reply is not None and format.holds and not format.rests and not reply.life.rests

    def _drop_oldest(self, stream: int, waiting: deque[_Queued]) -> list[Announced]:
        """Keep of a live source what is newest; while a reply speaks, of its pictures only the last."""
        fresh = [queued for queued in waiting if not queued.segment.clip]
        over = max(0, len(fresh) - _LATEST_SEGMENTS)
        gone = fresh[:over]
        if self._speaks(stream):
            gone += [queued for queued in fresh[over:] if queued.segment.event.modality == "video"][:-1]
        for old in gone:
            waiting.remove(old)
        return [queued.segment for queued in gone]
