"""Pairs of frames of one camera, no two of them the same, and how they go into a stream on the public `Engine`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import numpy as np

from ... import Appended, ContextOverflowError, Error, Event, PenstockError, Stream, VideoFrame

_SIDE, _PICTURES = 224, 16

Pair = list[VideoFrame]


class Noise:
    """What the camera sees: noise. `pair_seconds`: how much media time a pair of frames is."""

    def __init__(self, fps: float) -> None:
        self.pair_seconds = 2 / fps
        self._step_us = 1e6 / fps
        self._pictures = np.random.default_rng(0).integers(0, 256, (_PICTURES, _SIDE, _SIDE, 3), dtype=np.uint8)

    def pair(self, number: int) -> Pair:
        """The two frames of pair `number`, from 0."""
        return [self._frame(2 * number), self._frame(2 * number + 1)]

    def _frame(self, number: int) -> VideoFrame:
        pixels = np.roll(self._pictures[number % _PICTURES], number, axis=1)
        return VideoFrame(pixels, pts_us=round(number * self._step_us))


async def taken_in(stream: Stream, pairs: Iterable[Pair]) -> AsyncIterator[Event]:
    """Show pairs; the stream's events until all are in the KV cache, one `Appended` for each pair. Raises what the
    stream says instead: ContextOverflowError where it is full."""
    waiting = 0
    for pair in pairs:
        waiting += 1
        for frame in pair:
            await stream.append(frame)
    while waiting:
        event = await anext(stream)
        if isinstance(event, Error):
            raise (ContextOverflowError if event.code == ContextOverflowError.code else PenstockError)(event.message)
        waiting -= isinstance(event, Appended)
        yield event
