"""The newest frames and sound of a stream as they came, undecoded, so that a question may look back at them.

`Lookback` belongs to one stream and takes what is appended; `clip` gives the last seconds of it. `Keeping` is of one
engine: it makes them and counts what they hold. What a fork has of its stream's is the same objects. It decodes
nothing, and knows neither timelines nor actors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise

import msgspec

from ..engine.frozen import Frozen
from ..errors import InputError
from ..streams.item import AudioChunk, Item, VideoFrame
from ..streams.requests.request import FPS, Request
from .inputs import item_bytes

Piece = VideoFrame | AudioChunk


class Clip(msgspec.Struct, frozen=True, eq=False, tag="clip"):
    """Media that came once before, in the order of its times: a video of its own, at `fps` frames a second."""

    items: tuple[VideoFrame | AudioChunk, ...]
    fps: float


class KeptItem:
    """A piece of media, its bytes, the time at which it stops, and how many streams keep it."""

    __slots__ = ("item", "size", "stop_us", "streams")

    def __init__(self, item: Piece) -> None:
        self.item = item
        self.size = item_bytes(item)
        self.stop_us = (item.pts_us or 0) + _lasts_us(item)
        self.streams = 0


class Keeping:
    """How much the streams of an engine may keep, each and together, and how much they do: what several have counts
    once. `video_rate`: the rate at which its model takes a video of so many frames a second."""

    def __init__(self, most_bytes: int, most_of_all: int, video_rate: Callable[[float], float]) -> None:
        self.most_bytes, self.most_of_all = most_bytes, most_of_all
        self.video_rate = video_rate
        self.bytes = 0

    def begin(self, request: Request, source: Lookback | Frozen | None) -> Lookback:
        """What a stream that begins keeps: a copy what its `source` has, one that was frozen nothing of before, and
        none anything where the request does not ask for it."""
        lookback = Lookback(self, request.lookback or 0.0, request.lateness_us)
        if isinstance(source, Lookback):
            lookback.go_on_from(source)
        elif source is not None:
            lookback.is_cut = True
        return lookback

    def more(self, kept: KeptItem) -> None:
        """One more stream keeps it."""
        self.bytes += 0 if kept.streams else kept.size
        kept.streams += 1

    def less(self, kept: KeptItem) -> None:
        """A stream lets it go."""
        kept.streams -= 1
        self.bytes -= 0 if kept.streams else kept.size


class Lookback:
    """What one stream keeps: at most `seconds`, and at most as many bytes as `keeping` allows. Where all streams
    together have too many, the one that takes more lets its oldest go."""

    def __init__(self, keeping: Keeping, seconds: float, lateness_us: int) -> None:
        self.pieces: deque[KeptItem] = deque()
        self._keeping = keeping
        self._seconds = seconds
        self._lateness_us = lateness_us
        self._bytes = 0
        self._newest: dict[type, int] = {}  # the newest time at which a frame, or sound, starts
        self._stop_us = 0  # of what stops last
        self._gone_us: int | None = None  # where what had to go for its bytes stops
        self._strays = 0  # media in a row that is older than the lateness allows
        self.is_cut = False  # what comes first is not the first of its stream

    def go_on_from(self, source: Lookback) -> None:
        """Keep what `source` has, the same objects."""
        self.pieces, self._bytes = source.pieces.copy(), source._bytes
        self._newest, self._stop_us = dict(source._newest), source._stop_us
        self._gone_us, self._strays, self.is_cut = source._gone_us, source._strays, source.is_cut
        for kept in self.pieces:
            self._keeping.more(kept)

    def take(self, item: Item) -> None:
        """This was appended. What is older than the lateness allows is late once; then the clock was set back, and what
        was before that is let go."""
        if not self._seconds or not isinstance(item, VideoFrame | AudioChunk) or item.pts_us is None:
            return
        kind = type(item)
        if kind in self._newest and item.pts_us < self._newest[kind] - self._lateness_us:
            self._strays += 1
            if self._lateness_us and self._strays == 1:
                return
            self.clear()
        self._strays = 0
        self._newest[kind] = max(item.pts_us, self._newest.get(kind, item.pts_us))
        if self.is_cut:
            self._gone_us, self.is_cut = item.pts_us, False
        kept, keeping = KeptItem(item), self._keeping
        self._stop_us = max(kept.stop_us, self._stop_us) if self.pieces else kept.stop_us
        self.pieces.append(kept)
        self._bytes += kept.size
        keeping.more(kept)
        while self.pieces and self.pieces[0].stop_us <= self._since(self._seconds):
            self._let_go()
        while self.pieces and (self._bytes > keeping.most_bytes or keeping.bytes > keeping.most_of_all):
            gone_us = self._let_go()
            self._gone_us = gone_us if self._gone_us is None else max(gone_us, self._gone_us)

    def clip(self, seconds: float) -> Clip:
        """The last `seconds`, up to the newest, or all where the stream is younger than that.

        Raises InputError where the stream keeps less, where some of it had to go for its bytes, and where there is
        nothing.
        """
        if not self._seconds:
            raise InputError(f"lookback: expected a request with lookback, got one without, and {seconds} seconds")
        if not isinstance(seconds, int | float) or not 0 < seconds <= self._seconds:
            raise InputError(f"lookback: expected more than 0 seconds, at most {self._seconds:g}, got {seconds}")
        since_us = self._since(seconds)
        if self._gone_us is not None and self._gone_us > since_us:
            left = max(0, self._stop_us - self._gone_us) // 1000 / 1000
            raise InputError(
                f"lookback: {self._bytes} bytes are kept and no more: expected at most the {left:g} seconds that they "
                f"hold, got {seconds:g}"
            )
        items = [kept.item for kept in self.pieces if kept.stop_us > since_us]
        if not items:
            raise InputError("lookback: expected frames or sound with pts_us before the question, got none")
        items.sort(key=lambda item: item.pts_us or 0)
        times = sorted({item.pts_us for item in items if isinstance(item, VideoFrame) and item.pts_us is not None})
        return Clip(tuple(items), self._keeping.video_rate(_rate(times)))

    def clear(self) -> None:
        """Let all go."""
        while self.pieces:
            self._let_go()
        self._newest.clear()
        self._gone_us, self._strays = None, 0

    def _let_go(self) -> int:
        """The oldest goes; returns where it stops."""
        kept = self.pieces.popleft()
        self._bytes -= kept.size
        self._keeping.less(kept)
        return kept.stop_us

    def _since(self, seconds: float) -> int:
        return self._stop_us - round(seconds * 1_000_000)


def _lasts_us(item: Piece) -> int:
    if isinstance(item, VideoFrame):
        return 0
    width = 2 if item.encoding == "s16le" else 4
    count = item_bytes(item) // max(1, width * item.channels)
    if not isinstance(item.data, bytes | bytearray | memoryview):
        count = item.data.shape[-1] if item.data.ndim else 0
    return count * 1_000_000 // max(1, item.rate)


def _rate(times_us: list[int]) -> float:
    """Frames a second, by the usual time from one to the next: breaks do not count. 1 where there are fewer than two.
    In thousandths, since clocks round."""
    steps = sorted(later - earlier for earlier, later in pairwise(times_us))
    usual = [step for step in steps if step <= 2 * steps[len(steps) // 2]]
    if not usual:
        return 1.0
    return min(max(round(len(usual) * 1e6 / sum(usual), 3), FPS[0]), FPS[1])
