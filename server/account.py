"""What the clients of one key have used, held against its limits. Counts and refuses; knows neither sockets nor wires.

A limit by the second is a bucket that fills as time goes by and holds `BURST_SECONDS` of it: so a client may be uneven,
and what is over is refused at once, never kept for later.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image as Pictures

from ..codecs.limits import DEFAULT_LIMITS
from ..errors import PenstockError
from ..streams.event import Appended, Closed, Event, Token
from ..streams.item import Image, Item, Text, VideoFrame
from ..streams.requests.messages import parts
from ..streams.requests.prompt import gather
from ..streams.requests.request import Request
from .errors import QuotaError, RateLimitError
from .keys import ApiKey
from .metrics import Meter

BURST_SECONDS = 2.0
_DAY_SECONDS = 86_400


class _Bucket:
    """How much may still be used now."""

    def __init__(self, per_second: int, clock: Callable[[], float]) -> None:
        self._rate, self._clock = per_second, clock
        self._level, self._at = per_second * BURST_SECONDS, clock()

    def take(self, amount: int, what: str) -> None:
        """Use so much, or raise RateLimitError and use nothing."""
        now = self._clock()
        self._level = min(self._rate * BURST_SECONDS, self._level + (now - self._at) * self._rate)
        self._at = now
        if amount > self._level:
            wait = f"again in {(amount - self._level) / self._rate:.1f} s"
            if amount > self._rate * BURST_SECONDS:
                wait = "send less at once"
            raise RateLimitError(f"{what}: at most {self._rate} a second, got {amount} at once: {wait}")
        self._level -= amount


class Account:
    """All clients of one `key`, and where they are counted. `clock` gives seconds for rates, `today` seconds since 1970
    for days."""

    def __init__(
        self,
        key: ApiKey,
        meter: Meter,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self.name, self.meter = key.name, meter
        self.key, self._today = key, today
        self._streams = 0
        self._bytes = None if key.bytes_per_second is None else _Bucket(key.bytes_per_second, clock)
        self._pixels = None if key.pixels_per_second is None else _Bucket(key.pixels_per_second, clock)
        self._day = self._tokens = 0

    @contextlib.contextmanager
    def opening(self, size: int = 0, pixels: int = 0) -> Iterator[None]:
        """One more stream, whose request brings so many bytes of media with so many pixels, until `close`; none if the
        body raises. RateLimitError or QuotaError where it is too much."""
        self._check_day()
        most = self.key.streams
        if most is not None and self._streams >= most:
            raise RateLimitError(f"streams of key {self.name}: at most {most}, got one more")
        self._take(size, pixels)
        self._streams += 1
        try:
            yield
        except BaseException:
            self._streams -= 1
            raise

    def close(self) -> None:
        """A stream has ended."""
        self._streams -= 1

    def append(self, item: Item, size: int) -> None:
        """An item of media whose message has `size` bytes. RateLimitError or QuotaError where it is too much."""
        self._check_day()
        if not isinstance(item, Text):
            self._take(size, 0 if self._pixels is None else pixels_of(item))

    @property
    def counts_pixels(self) -> bool:
        """Whether its key has a limit on pixels, so that they have to be known."""
        return self._pixels is not None

    def ask(self) -> None:
        """A question. QuotaError where the day's tokens are used up."""
        self._check_day()

    def note(self, event: Event) -> None:
        """Count what an event says was used."""
        match event:
            case Token():
                self._use(1)
            case Appended():
                self._use(event.rows)
            case Closed(usage=usage) if usage is not None:
                self.meter.key_encode.labels(self.name).inc(usage.encode_seconds)
                self.meter.key_steps.labels(self.name).inc(usage.step_seconds)
                for modality, rows in usage.rows.items():
                    self.meter.key_rows.labels(self.name, modality).inc(rows)

    def _take(self, size: int, pixels: int) -> None:
        if self._pixels is not None:
            self._pixels.take(pixels, f"pixels of key {self.name}")
        if self._bytes is not None:
            self._bytes.take(size, f"bytes of key {self.name}")
        self.meter.key_bytes.labels(self.name).inc(size)

    def _use(self, tokens: int) -> None:
        day = int(self._today() // _DAY_SECONDS)
        if day != self._day:
            self._day, self._tokens = day, 0
        self._tokens += tokens
        self.meter.key_tokens.labels(self.name).inc(tokens)

    def _check_day(self) -> None:
        self._use(0)
        most = self.key.tokens_per_day
        if most is not None and self._tokens >= most:
            raise QuotaError(
                f"tokens of key {self.name}: at most {most} a day (UTC), got {self._tokens}; more after midnight"
            )


def brings_media(request: Request) -> bool:
    """Whether a request has media of its own. What is no request is refused elsewhere."""
    try:
        return bool(request.media) or any(part.get("type") != "text" for _, part in parts(request.messages or ()))
    except (AttributeError, KeyError, TypeError):
        return False


def pixels_of_request(request: Request) -> int:
    """The pixels of the pictures in a request. It decodes base64, so it takes a while; 0 where the request is refused
    elsewhere."""
    try:
        return sum(pixels_of(piece) for piece in gather(request, DEFAULT_LIMITS).media if isinstance(piece, Image))
    except PenstockError:
        return 0


def pixels_of(item: Item) -> int:
    """How many pixels a picture or a frame has, by the head of its file; 0 for everything else, and for a file that is
    no picture, which the decoder refuses."""
    if not isinstance(item, Image | VideoFrame):
        return 0
    if isinstance(item.data, np.ndarray):
        return int(np.prod(item.data.shape[:2]))
    if isinstance(item, VideoFrame) and item.encoding != "picture":
        return item.width * item.height
    try:
        with Pictures.open(io.BytesIO(item.data)) as picture:
            return picture.width * picture.height
    except Exception:
        return 0
