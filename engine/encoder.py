"""Encodes what is new only: a cache of spans by content before the towers. One thread uses it.

The key is the content of the segment; the model, its processor and its type are fixed for the cache's life. Sound is not kept:
its features hang on what the stream has heard before.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import msgspec

from ..streams.segment import AudioSegment, ImageSegment, Segment, UnitSegment, VideoSegment
from .family import Towers
from .gate import Gate
from .span import Prompt, Span


class Encoder:
    """The towers of one model behind a cache of `cache_bytes`; rests at `gate` between their blocks."""

    def __init__(self, towers: Towers, cache_bytes: int, gate: Gate | None = None) -> None:
        self._towers = towers
        self._limit = cache_bytes
        self._cache: OrderedDict[bytes, Span] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.encoded = 0  # segments that went through a tower
        if gate is not None:
            gate.watch(towers.blocks)

    def rows(self, segment: Segment) -> int:
        """How many rows the segment will have."""
        return self._towers.rows(segment)

    def encode(self, batch: list[tuple[int, Segment]]) -> list[Span]:
        """Spans of (stream, segment) pairs, in their order."""
        keys = [_key(segment) for _, segment in batch]
        fresh = [place for place, key in enumerate(keys) if key is None or key not in self._cache]
        encoded = self._towers.encode([batch[place] for place in fresh]) if fresh else []
        self.encoded += len(fresh)
        found = dict(zip(fresh, encoded, strict=True))
        spans = []
        for place, (key, (_, segment)) in enumerate(zip(keys, batch, strict=True)):
            span = found.get(place)
            if span is None:
                assert key is not None
                self.hits += 1
                self._cache.move_to_end(key)
                times = {"start_us": segment.start_us, "stop_us": segment.stop_us}
                span = msgspec.structs.replace(self._cache[key], seq=segment.seq, index=segment.index, **times)
            spans.append(span)
        for place, span in found.items():
            key = keys[place]
            if key is not None and key not in self._cache:
                self._keep(key, span)
        return spans

    def prompt(
        self, messages: list[dict[str, Any]], system: str | None, fps: float | None, audio_in_video: bool
    ) -> Prompt:
        """A whole conversation, as the model's own processor has it."""
        return self._towers.prompt(messages, system, fps, audio_in_video)

    def fork(self, stream: int, twin: int) -> None:
        self._towers.fork(stream, twin)

    def forget(self, stream: int) -> None:
        self._towers.forget(stream)

    def _keep(self, key: bytes, span: Span) -> None:
        self._cache[key] = span
        self._bytes += span.embeds.nbytes
        while self._bytes > self._limit:
            _, oldest = self._cache.popitem(last=False)
            self._bytes -= oldest.embeds.nbytes


def _key(segment: Segment) -> bytes | None:
    if isinstance(segment, AudioSegment | UnitSegment):
        return None
    assert isinstance(segment, ImageSegment | VideoSegment)
    pixels = segment.pixels
    head = f"{type(segment).__name__} {pixels.shape} {pixels.dtype}".encode()
    return hashlib.blake2b(head + pixels.tobytes(), digest_size=16).digest()
