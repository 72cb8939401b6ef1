"""Which segments the encoder begins next, and which of a live source are dropped. Times come from the caller.

A segment is announced, and waits until it is granted or dropped. A stream's own segments stay in order; of several
streams goes first what is due first.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from ...streams.event import Dropped
from ..conversation.state import StreamState
from .pace import Pace
from .policy import grant

# Segments of a camera that may wait for the encoder; the oldest go first.
_LATEST_SEGMENTS = 4
# Rows of spans that may wait for their turn before a stream's next segments are encoded.
_AHEAD_ROWS = 4096
# No segment is due later than this from now, whatever its media time says; and times that leap farther, or come so much
# too late, set a stream's clock again.
_FARTHEST_US = 10_000_000
# How long a piece that has no duration counts: a picture.
_PICTURE_US = 500_000

Key = tuple[int, int, int]  # stream, seq, index


class Announced(msgspec.Struct, frozen=True):
    """A segment that waits: how many rows it will have, the media time at which it stops, and what its client is told
    where it is dropped."""

    key: Key
    rows: int
    stop_us: int | None
    event: Dropped


class Granting:
    """The segments of all `streams` that wait for the encoder. `rows` says how many rows it is given at once."""

    def __init__(self, streams: Mapping[int, StreamState], rows: Pace) -> None:
        self._streams = streams
        self._rows = rows
        self._waiting: dict[int, deque[tuple[int, Announced]]] = {}  # with the time at which each is due
        self._granted: set[Key] = set()  # what the encoder works on
        self._granted_rows, self._granted_at = 0, 0.0
        self._clocks: dict[int, tuple[int, int]] = {}  # per stream: now minus its media time, and its last, in us
        self._live: dict[int, tuple[int, int]] = {}  # per stream: when its last piece came, and how long that is, in us

    @property
    def waiting(self) -> int:
        """How many segments wait."""
        return sum(map(len, self._waiting.values()))

    def announce(self, stream: int, segments: Iterable[Announced], now_us: int) -> list[Announced]:
        """These wait now, after those that do. Returns which of the stream's are dropped instead."""
        waiting = self._waiting.setdefault(stream, deque())
        for segment in segments:
            due_us = now_us if segment.stop_us is None else self.due(stream, segment.stop_us, now_us)
            waiting.append((due_us, segment))
            start_us, stop_us = segment.event.start_us, segment.stop_us
            length_us = _PICTURE_US if start_us is None or stop_us is None else stop_us - start_us
            self._live[stream] = now_us, max(1, length_us)
        return self._drop_oldest(stream, waiting) if self._is_live(stream) else []

    def grant(self, now: float) -> list[Key]:
        """What the encoder begins at `now`, in seconds; nothing while it is at work."""
        if self._granted:
            return []
        queues = [waiting for stream, waiting in self._waiting.items() if waiting and self.wants_spans(stream)]
        order = list(heapq.merge(*queues, key=lambda entry: entry[0]))
        count = grant([(due_us, segment.rows) for due_us, segment in order], self._rows.rows)
        keys = [self._waiting[segment.key[0]].popleft()[1].key for _, segment in order[:count]]
        self._granted, self._granted_at = set(keys), now
        self._granted_rows = sum(segment.rows for _, segment in order[:count])
        return keys

    def encoded(self, keys: set[Key], now: float) -> None:
        """These are encoded; where that is all that was granted, it says how long so many rows take."""
        if self._granted and self._granted <= keys:
            self._rows.took(self._granted_rows, (now - self._granted_at) * 1000)
        self._granted -= keys

    def failed(self, key: Key) -> None:
        """This one could not be encoded."""
        self._granted.discard(key)

    def live(self, now_us: int) -> dict[int, int]:
        """The streams to which media came in the last seconds, and how long a piece of each lasts, in microseconds: so
        much time there is for it before the next."""
        return {stream: length_us for stream, (at_us, length_us) in self._live.items() if at_us > now_us - _FARTHEST_US}

    def fork(self, stream: int, twin: int) -> None:
        """The twin's media goes on in the stream's times, and is as live."""
        for times in (self._clocks, self._live):
            if stream in times:
                times[twin] = times[stream]

    def forget(self, stream: int) -> None:
        """A stream has ended."""
        self._waiting.pop(stream, None)
        self._granted = {key for key in self._granted if key[0] != stream}
        self._clocks.pop(stream, None)
        self._live.pop(stream, None)

    def due(self, stream: int, stop_us: int, now_us: int) -> int:
        """When a segment is due: when its media time comes round on the stream's clock, which its first segment sets. A
        stream that was quiet for long, or whose times begin again elsewhere, owes nothing of before."""
        clock_us, last_us = self._clocks.get(stream, (now_us - stop_us, stop_us))
        if clock_us + stop_us < now_us - _FARTHEST_US or abs(stop_us - last_us) > _FARTHEST_US:
            clock_us = now_us - stop_us
        self._clocks[stream] = clock_us, stop_us
        return min(clock_us + stop_us, now_us + _FARTHEST_US)

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

    def _drop_oldest(self, stream: int, waiting: deque[tuple[int, Announced]]) -> list[Announced]:
        """Keep of a live source what is newest; while a reply speaks, of its pictures only the last."""
        gone = [waiting.popleft() for _ in range(len(waiting) - _LATEST_SEGMENTS)]
        if self._speaks(stream):
            pictures = [entry for entry in waiting if entry[1].event.modality == "video"]
            gone += pictures[:-1]
            for old in pictures[:-1]:
                waiting.remove(old)
        return [segment for _, segment in gone]
