"""The clock by which actors see what is due. It is the only one, so tests put their own in its place."""

from __future__ import annotations

import time


def now_us() -> int:
    """Microseconds on the clock of `time.monotonic`."""
    return time.monotonic_ns() // 1000
