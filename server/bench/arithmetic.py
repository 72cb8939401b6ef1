"""From times to figures: lag, synchrony, time between tokens, rates, and whether a server kept up.

In: times in seconds on one clock, media times in microseconds. Out: plain numbers. Nothing here measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SYNCHRONOUS = 0.99  # the share of frames that has to be in time for a server to have kept up


class Shown(NamedTuple):
    """A piece of media that a client has sent: a picture, or a pair of frames.

    due: when its last frame was to be sent. stop_us: the media time of that frame. kv: when the client heard that the
    piece is in the KV cache; None if it never did.
    """

    due: float
    stop_us: int
    kv: float | None


class Said(NamedTuple):
    """A token that has come. time: when it came. seen_us: the media time of the newest media that it could see."""

    time: float
    seen_us: int | None


def lag(shown: Shown, said: Sequence[Said]) -> float | None:
    """Seconds from when the piece was due until the client had the first token that could see it.

    If no later token came, for example because the reply had ended, until the client heard that it is in the KV cache.
    None if neither happened.
    """
    for token in said:
        if token.seen_us is not None and token.seen_us >= shown.stop_us:
            return token.time - shown.due
    return None if shown.kv is None else shown.kv - shown.due


def synchrony(lags: Sequence[float | None], interval: float) -> float:
    """The share of pieces whose lag is within their own interval. A piece that never went in is one that is not."""
    if not lags:
        return 1.0
    return sum(one is not None and one <= interval for one in lags) / len(lags)


def keeps_up(lags: Sequence[float | None], interval: float) -> str:
    """Why a server did not keep up with these pieces, in the order in which they were due; empty if it did.

    It kept up if all went in, the median lag of the last third is at most that of the first third and half an interval,
    and the synchrony is at least 99 %.
    """
    known = [one for one in lags if one is not None]
    if len(known) < len(lags):
        return f"{len(lags) - len(known)} of {len(lags)} pieces never went in"
    third = max(1, len(known) // 3)
    if known:
        first, last = float(np.median(known[:third])), float(np.median(known[-third:]))
        if last > first + interval / 2:
            return f"the lag grew from {first:.2f} to {last:.2f} s"
    share = synchrony(lags, interval)
    return "" if share >= SYNCHRONOUS else f"{share:.1%} of the pieces were in time"


def gaps(times: Sequence[float]) -> list[float]:
    """The time between neighbours."""
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed; not a number without values."""
    return float(np.percentile(values, percent, method="inverted_cdf")) if len(values) else math.nan


def decode_rate(replies: Sequence[Sequence[float]]) -> float:
    """Tokens a second of all replies together, while all of them decode.

    replies: the times of each one's tokens. The window goes from the slowest first token to the earliest last one, so
    that neither prompts nor replies that have ended count. Not a number if they never all decode at once.
    """
    start, stop = max(times[0] for times in replies), min(times[-1] for times in replies)
    if stop <= start:
        return math.nan
    return sum(start < time <= stop for times in replies for time in times) / (stop - start)


def overall_rate(replies: Sequence[Sequence[float]]) -> float:
    """Tokens a second from the start, time 0, to the last token."""
    return sum(map(len, replies)) / max(times[-1] for times in replies)


def late(dues: Sequence[float], sent: Sequence[float], allowed: float) -> int:
    """How many sends came more than `allowed` seconds after they were due."""
    return sum(at - due > allowed for due, at in zip(dues, sent, strict=True))
