"""Decoded media: what comes out of every decoder. Knows numpy only."""

from __future__ import annotations

import msgspec
import numpy as np


class Pixels(msgspec.Struct, frozen=True, eq=False, tag="pixels"):
    """One picture. `pixels` is `(h, w, 3)` uint8 RGB, contiguous; `pts_us` its media time in microseconds."""

    pixels: np.ndarray
    pts_us: int

    def __deepcopy__(self, memo: object) -> Pixels:
        return self  # nobody writes into a frame, so the timelines of a fork and of its parent share it


class Samples(msgspec.Struct, frozen=True, eq=False, tag="samples"):
    """A run of sound. `samples` is `(channels, n)` float32 in [-1, 1] at `rate` Hz; `pts_us` the time of its first."""

    samples: np.ndarray
    rate: int
    pts_us: int

    def __deepcopy__(self, memo: object) -> Samples:
        return self


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """Media that was sent and could not be decoded: `count` packets of a "video" or "audio" track, from `start_us` to
    `stop_us` of media time.
    """

    modality: str
    count: int
    start_us: int
    stop_us: int


Frame = Pixels | Samples
