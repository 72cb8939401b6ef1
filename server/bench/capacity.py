"""`penstock bench capacity`: how many live streams a server keeps up with, one of them speaking.

Each stream is a WebSocket of its own with a camera at `--fps`; their pictures are spread evenly over the interval. The
number of streams is doubled until the server no longer keeps up, and then the largest number that it keeps up with is
searched between the last two. `arithmetic.keeps_up` is the rule.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ...streams.requests.request import Request
from ..client import connect
from .arithmetic import keeps_up, lag, percentile, synchrony
from .camera import PacedCamera, jpegs
from .figures import Figure, progress, setting, show
from .peers.child import QUESTION
from .served import Served, greedy, served

_LEAD = 4  # intervals at the start of a trial that do not count
_AGAIN = 2  # times that a trial is repeated if pictures were sent late
_NO_END = 100_000  # tokens of the reply that is spoken: it is cut at the end of the trial


class Trial(NamedTuple):
    """One number of streams. lags: seconds, one a piece, of all streams. why: why they were too many, else empty."""

    streams: int
    lags: list[float | None]
    late: int
    why: str


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    return asyncio.run(_main(options))


async def _main(options: argparse.Namespace) -> int:
    trials: list[Trial] = []
    async with served(options) as server:

        async def holds(streams: int) -> bool:
            trials.append(await _valid(server, options, streams, len(trials)))
            why = trials[-1].why
            progress(f"{streams} streams: {f'too many: {why}' if why else 'it keeps up'}")
            return not why

        await _trial(server, options, 1, 1_000, min(2.0, options.seconds))  # warms up
        found: list[float | None] = [await largest(holds, options.most_streams) for _ in range(options.rounds)]
    interval = 1 / options.fps
    figures = [Figure(bench="capacity", case="search", what="live streams", unit="streams", rounds=found)]
    for trial in trials:
        figures += _of_trial(trial, interval)
    show(setting("capacity", options.model, server.dtype, server.device, len(found)), figures, options.json)
    return 0


async def largest(holds: Callable[[int], Awaitable[bool]], most: int) -> int:
    """The largest number up to `most` that holds, if smaller ones hold where larger ones do; 0 if not even 1 holds."""
    low, high = 0, 1
    while await holds(high):
        low, high = high, min(2 * high, most)
        if low == high:
            return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if await holds(middle) else (low, middle)
    return low


async def _valid(server: Served, options: argparse.Namespace, streams: int, number: int) -> Trial:
    """A trial whose pictures were sent in time, or the last one."""
    for again in range(_AGAIN + 1):
        trial = await _trial(server, options, streams, number * 10_000 + again * 1000, options.seconds)
        if not trial.late:
            return trial
        progress(f"{streams} streams: this trial is invalid: {trial.late} pictures were sent late, so it says nothing")
    return trial._replace(why=f"its clients sent {trial.late} pictures late, {_AGAIN + 1} times")


async def _trial(server: Served, options: argparse.Namespace, streams: int, seed: int, seconds: float) -> Trial:
    interval = 1 / options.fps
    lead = _LEAD * interval
    count = round((lead + seconds) * options.fps) + 2
    async with contextlib.AsyncExitStack() as stack:
        cameras = []
        for place in range(streams):
            connection = await stack.enter_async_context(connect(server.url))
            request = Request(format="live", video_fps=options.fps)
            pictures = await asyncio.to_thread(jpegs, seed + place, count)
            camera = PacedCamera(await connection.stream(request), pictures, options.fps, options.media)
            cameras.append(await stack.enter_async_context(camera))
        speaker = cameras[0]
        await speaker.ask(QUESTION, greedy(_NO_END))
        start = time.perf_counter() + interval
        shows = (
            camera.show(start + interval * place / streams, lead + seconds) for place, camera in enumerate(cameras)
        )
        await asyncio.gather(*shows)
        await speaker.interrupt()
        await asyncio.gather(*(camera.settle() for camera in cameras))
        shown = [(piece, camera) for camera in cameras for piece in camera.shown(start + lead, start + lead + seconds)]
        shown.sort(key=lambda pair: pair[0].due)
        lags = [lag(piece, camera.said) for piece, camera in shown]
        faults = [fault for camera in cameras for fault in camera.faults]
        why = faults[0] if faults else keeps_up(lags, interval)
        return Trial(streams, lags, sum(camera.late for camera in cameras), why)


def _of_trial(trial: Trial, interval: float) -> list[Figure]:
    known = [one for one in trial.lags if one is not None]
    values = (
        ("lag, p50", "s", percentile(known, 50)),
        ("lag, p95", "s", percentile(known, 95)),
        ("synchrony", "%", synchrony(trial.lags, interval) * 100),
    )
    case = f"{trial.streams} streams"
    return [
        Figure(bench="capacity", case=case, what=what, unit=unit, rounds=[value], note=trial.why)
        for what, unit, value in values
    ]
