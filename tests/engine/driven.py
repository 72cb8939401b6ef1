"""One stream whose inputs a test hands in itself."""

from __future__ import annotations

from typing import Any, TypeVar

from penstock.codecs.frame import Pixels
from penstock.engine.command import Accept, Input, MediaInput, Resolved, Spans
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.streams.event import Event
from penstock.streams.requests.request import Request
from penstock.streams.segment import Segment
from penstock.streams.timeline import Timeline

from tests.reference.media import frames, picture

from .rig import _streams

T = TypeVar("T")


class Driven:
    """One stream over a cache of `rows` rows."""

    def __init__(self, loaded: Loaded, rows: int = 8192, **request: Any) -> None:
        self.core = Core(loaded, EngineConfig(kv_tokens=rows, backend="cpu"))
        self.scheduler, self.stream = self.core.scheduler, next(_streams)
        self.request = Request(**{"format": "turns", "window": None, **request})
        self.core.open(self.stream, self.request)
        self.events: list[Event] = []
        self.encode = self.core.encoder.encode
        self._timeline = Timeline(loaded.family.spec)
        self.size: tuple[int, ...] = ()  # of its frames, height and width

    def accept(self, *inputs: Input) -> None:
        for input in inputs:
            self.scheduler.apply(Accept(self.stream, input))

    def run(self, steps: int = 1000) -> None:
        for _ in range(steps):
            done = self.core.step()
            self.events += [event for _, event in self.scheduler.events()]
            if done is None:
                return

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def pair(self, seq: int) -> None:
        """Two frames as input `seq`: one span, which is there at once."""
        self.accept(MediaInput(seq))
        self.pair_of(seq, seq)
        self.scheduler.apply(Resolved(self.stream, seq))

    def image(self, seq: int) -> None:
        """A picture as input `seq`."""
        self.accept(MediaInput(seq))
        self._encoded(self._timeline.image(seq, picture(seq, 112, 112)).segments)
        self.scheduler.apply(Resolved(self.stream, seq))

    def pair_of(self, seq: int, place: int) -> None:
        """Two frames of input `seq`, the pair number `place` of the stream's media."""
        pair = enumerate(frames(seq, 2, *self.size))
        taken = [Pixels(pixels, (2 * place + number) * 500_000) for number, pixels in pair]
        self._encoded(self._timeline.feed(seq, taken).segments)

    def _encoded(self, segments: list[Segment]) -> None:
        self.scheduler.apply(Spans(self.stream, self.encode([(self.stream, segment) for segment in segments])))
