"""`penstock bench live`: pictures that arrive while a reply is spoken, through a server.

A client shows a picture each half second and asks for a reply of 64 tokens meanwhile. Per round: how long from when a
picture was due until the client had the first token that could see it, and until it heard that the picture is in the KV
cache; the synchrony; and the time between tokens, with pictures and, just before, without.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import PenstockError
from ...streams.requests.request import Request
from ..client import Connection, connect
from .arithmetic import gaps, lag, percentile, synchrony
from .camera import PacedCamera, jpegs
from .figures import Figure, per_round, progress, setting, show
from .peers.child import QUESTION
from .served import greedy, served

_BEFORE = 4  # pictures that are in before the first question
_LEAD = 2  # pictures that are shown at pace before the second question
_MOST_SECONDS = 120.0  # that a round may take


class Round(NamedTuple):
    """What one round gave. lags, kv: seconds, one a picture. idle, meanwhile: seconds between tokens. late: sends."""

    lags: list[float | None]
    kv: list[float | None]
    idle: list[float]
    meanwhile: list[float]
    late: int
    faults: list[str]


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0, or 1 if no round was valid."""
    return asyncio.run(_main(options))


async def _main(options: argparse.Namespace) -> int:
    rounds: list[Round] = []
    async with served(options) as server, connect(server.url) as connection:
        model = options.model or connection.welcome.model
        await _timely(connection, options, 0)  # warms up
        for attempt in range(1, 2 * options.rounds + 1):
            one = await _timely(connection, options, attempt)
            if one.late:
                progress(f"attempt {attempt} is invalid: {one.late} pictures were sent late, so it says nothing")
                continue
            rounds.append(one)
            progress(f"round {len(rounds)} of {options.rounds}: {len(one.lags)} pictures during the reply")
            if len(rounds) == options.rounds:
                break
    note = "" if len(rounds) == options.rounds else f"only {len(rounds)} rounds were valid: pictures were sent late"
    show(
        setting("live", model, server.dtype, server.device, len(rounds)),
        figures(rounds, 1 / options.fps, options.media, note),
        options.json,
    )
    return 0 if rounds else 1


async def _timely(connection: Connection, options: argparse.Namespace, number: int) -> Round:
    """A round. PenstockError if it takes longer than there are pictures for."""
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            return await _round(connection, options, number)
    except TimeoutError:
        raise PenstockError(
            f"live: expected a round of {2 * options.tokens} tokens in {_MOST_SECONDS:g} s, and it took longer; "
            "lower --tokens, or leave the machine to the server"
        ) from None


async def _round(connection: Connection, options: argparse.Namespace, number: int) -> Round:
    pictures = await asyncio.to_thread(jpegs, number, round(_MOST_SECONDS * options.fps))
    params = greedy(options.tokens)
    async with (
        await connection.stream(Request(format="live", video_fps=options.fps)) as stream,
        PacedCamera(stream, pictures, options.fps, options.media) as camera,
    ):
        await camera.take_in(_BEFORE)
        idle = await camera.speak(QUESTION, params)
        start = time.perf_counter() + camera.interval
        showing = asyncio.create_task(camera.show(start), name="bench.live.show")
        await asyncio.sleep(camera.interval * (_LEAD + 0.5))
        said = await camera.speak(QUESTION, params)
        await asyncio.sleep(camera.interval)  # what was shown last may have a lag of its own
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        await camera.settle()
        shown = camera.shown(said[0].time, said[-1].time) if said else []
    return Round(
        [lag(one, said) for one in shown],
        [None if one.kv is None else one.kv - one.due for one in shown],
        gaps([token.time for token in idle]),
        gaps([token.time for token in said]),
        camera.late,
        camera.faults,
    )


def figures(rounds: list[Round], interval: float, media: str, note: str) -> Iterator[Figure]:
    """The figures of the valid rounds. A round without a picture during its reply has no lag and no synchrony."""
    if not any(one.lags for one in rounds):
        note = note or "the replies were shorter than the time between two pictures: raise --tokens or --fps"
    note = next((fault for one in rounds for fault in one.faults), note)
    case = f"{media} each {interval:g} s"

    def figure(what: str, unit: str, values: list[float | None]) -> Figure:
        return Figure(bench="live", case=case, what=what, unit=unit, rounds=values, note=note)

    yield figure("pictures during the reply", "pieces", [len(one.lags) for one in rounds])
    for name, kept in (("due to first token that sees it", "lags"), ("due to KV cache", "kv")):
        for percent in (50, 95):
            values = [[one for one in getattr(of, kept) if one is not None] for of in rounds]
            yield figure(f"{name}, p{percent}", "s", [percentile(one, percent) for one in values])
    shares = [synchrony(one.lags, interval) * 100 if one.lags else None for one in rounds]
    yield figure("synchrony", "%", shares)
    idle = {percent: [percentile(one.idle, percent) * 1000 for one in rounds] for percent in (50, 99)}
    for percent in (50, 99):
        yield figure(f"between tokens, idle, p{percent}", "ms", [*idle[percent]])
    for percent in (50, 99):
        values = [percentile(one.meanwhile, percent) * 1000 for one in rounds]
        yield Figure(
            bench="live",
            case=case,
            what=f"between tokens, meanwhile, p{percent}",
            unit="ms",
            rounds=[*values],
            against="idle p50",
            ratios=per_round(values, idle[50]),
            note=note,
        )
