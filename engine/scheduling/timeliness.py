"""How timely media is, measured: of each piece from when its media was handed in until it is in the KV cache, and of
each token how old the newest media behind it was. Times come from the caller, in microseconds on one clock.

What it keeps of a stream does not grow: counts, the newest measurements, and the pieces that are on their way.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from itertools import takewhile
from typing import Any

import msgspec

from ...streams.event import Appended, Dropped, Event, ReplyStarted, Token

# Measurements that are kept of one stream, and of all together.
_NEWEST, _NEWEST_OF_ALL = 64, 1024
# Pieces of a stream that may be on their way; and those in the cache of which it is known when they came, for the
# tokens that see them.
_MOST_ON_WAY, _MOST_SEEN = 4096, 16

# A piece as events name it: seq, modality, and the media times at which it starts and stops.
Name = tuple[int, str, int | None, int | None]


class Expected(msgspec.Struct, frozen=True):
    """A piece of media on its way into the cache. `index`: among those of its input. It is overdue after
    `due_us + interval_us`."""

    index: int
    arrived_us: int
    due_us: int
    interval_us: int

    @property
    def deadline_us(self) -> int:
        return self.due_us + self.interval_us

    @property
    def aim_us(self) -> int:
        """When it should be in the cache. The rest of the time is for what nobody has foreseen."""
        return self.due_us + self.interval_us // 2


class Tally:
    """What was measured of one stream or of all: counts from the beginning, and the `newest` measurements."""

    def __init__(self, newest: int) -> None:
        self.pieces = 0  # in the cache
        self.missed = 0  # of these overdue; and those that newer ones took the place of
        self.dropped: Counter[str] = Counter()  # by reason
        self._timely: deque[bool] = deque(maxlen=newest)
        self._lags_us: deque[int] = deque(maxlen=newest)
        self._ages_us: deque[int] = deque(maxlen=newest)

    def appended(self, lag_us: int, overdue: bool) -> None:
        """A piece is in the cache, so long after it came."""
        self.pieces += 1
        self.missed += overdue
        self._lags_us.append(lag_us)
        self._timely.append(not overdue)

    def lost(self, event: Dropped) -> None:
        """Media that no row is made of. What newer media took the place of was not in the cache in time."""
        self.dropped[event.reason] += event.count
        if event.reason == "latest":
            self.missed += event.count
            self._timely.extend([False] * min(event.count, _NEWEST_OF_ALL))

    def drawn(self, age_us: int) -> None:
        """A token, and how old the newest media was that it could see."""
        self._ages_us.append(age_us)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.pieces or self.dropped)

    def figures(self) -> dict[str, Any]:
        """As `Engine.statistics` has them. What was not measured is None."""
        return {
            "pieces": self.pieces,
            "missed": self.missed,
            "dropped": dict(self.dropped),
            "synchrony": sum(self._timely) / len(self._timely) if self._timely else None,
            "lag_ms": _percentiles(self._lags_us),
            "age_ms": _percentiles(self._ages_us),
        }


class _Measured:
    """What is kept of one stream."""

    def __init__(self) -> None:
        self.tally = Tally(_NEWEST)
        self.on_way: dict[Name, Expected] = {}  # in the order in which they came
        self.arrivals: dict[Name, int] = {}  # of the newest pieces in the cache
        self.spoke_us = 0  # when its reply began or said its newest token

    def arrives(self, name: Name) -> Expected | None:
        """A piece is in the cache. Those of its kind that came before it and are not there will not come any more."""
        if name not in self.on_way:
            return None
        for other in [*takewhile(lambda other: other != name, self.on_way)]:
            if other[1] == name[1]:
                del self.on_way[other]
        piece = self.on_way.pop(name)
        self.arrivals[name] = piece.arrived_us
        if len(self.arrivals) > _MOST_SEEN:
            del self.arrivals[next(iter(self.arrivals))]
        return piece


class Timeliness:
    """Of all streams. A stream is known from `begin` to `forget`; of others nothing is kept but the counts of all."""

    def __init__(self) -> None:
        self._all = Tally(_NEWEST_OF_ALL)
        self._streams: dict[int, _Measured] = {}

    def begin(self, stream: int) -> None:
        """A stream is open."""
        self._streams[stream] = _Measured()

    def fork(self, stream: int, twin: int) -> None:
        """The twin's counts begin here; what is on its way or in the cache is as old as the stream's."""
        self.begin(twin)
        if stream in self._streams:
            parent, child = self._streams[stream], self._streams[twin]
            child.on_way, child.arrivals = dict(parent.on_way), dict(parent.arrivals)
            child.spoke_us = parent.spoke_us

    def forget(self, stream: int) -> None:
        """A stream has ended."""
        self._streams.pop(stream, None)

    def expect(self, stream: int, name: Name, piece: Expected) -> None:
        """A piece is on its way."""
        if stream in self._streams:
            on_way = self._streams[stream].on_way
            on_way[name] = piece
            if len(on_way) > _MOST_ON_WAY:
                del on_way[next(iter(on_way))]

    def failed(self, stream: int, seq: int, index: int) -> None:
        """A piece came to nothing: it is no longer expected."""
        if stream in self._streams:
            on_way = self._streams[stream].on_way
            for name in [name for name, piece in on_way.items() if (name[0], piece.index) == (seq, index)]:
                del on_way[name]

    def first(self, stream: int) -> Expected | None:
        """The piece of a stream that has been on its way for longest."""
        on_way = self._streams[stream].on_way if stream in self._streams else {}
        return next(iter(on_way.values()), None)

    def spoke_us(self, stream: int) -> int:
        """When a stream's reply began or said its newest token; 0 where there was none."""
        return self._streams[stream].spoke_us if stream in self._streams else 0

    def tell(self, stream: int, event: Event, now_us: int) -> Event:
        """The event as its client is told of it at `now_us`: with what was measured of the media that it is about."""
        known = self._streams.get(stream)
        match event:
            case Dropped():
                self._all.lost(event)
                if known is not None:
                    known.tally.lost(event)
                    known.on_way.pop(_name(event), None)
            case ReplyStarted() if known is not None:
                known.spoke_us = now_us
            case Appended() if known is not None and (piece := known.arrives(_name(event))) is not None:
                lag_us, overdue_us = now_us - piece.arrived_us, max(0, now_us - piece.deadline_us)
                for tally in (self._all, known.tally):
                    tally.appended(lag_us, overdue_us > 0)
                return msgspec.structs.replace(event, lag_us=lag_us, overdue_us=overdue_us)
            case Token() if known is not None:
                known.spoke_us = now_us
                seen = event.seen
                arrived_us = None if seen is None else known.arrivals.get(_name(seen))
                if arrived_us is not None:
                    for tally in (self._all, known.tally):
                        tally.drawn(now_us - arrived_us)
                    return msgspec.structs.replace(event, age_us=now_us - arrived_us)
        return event

    def statistics(self) -> dict[str, Any]:
        """Of all streams that there have been, and of those that are open and to which media came."""
        told = {stream: known.tally.figures() for stream, known in self._streams.items() if not known.tally.is_empty}
        return {"timeliness": self._all.figures(), "timeliness_by_stream": told}


def _name(named: Any) -> Name:
    """Of what an event names."""
    return named.seq, named.modality, named.start_us, named.stop_us


def _percentiles(values_us: Iterable[int]) -> dict[str, float] | None:
    """Median and 95th percentile in milliseconds: the smallest value that so many do not exceed."""
    ordered = sorted(values_us)
    if not ordered:
        return None
    return {f"p{percent}": ordered[-(-len(ordered) * percent // 100) - 1] / 1000 for percent in (50, 95)}
