"""`penstock bench endless`: hours of one camera, pushed as fast as they go, on the public `Engine` in this process.

Frames come in pairs, as the model takes them; every half minute of media time a question is asked. For each part
of the time: how long taking in a pair takes, how long from a question to its first token, and what memory is used. When
the window has filled, all of these should stay as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Iterator

import msgspec
import numpy as np

from ... import Appended, Engine, Request, SamplingParams, Stream, VideoFrame, Window
from .arithmetic import percentile
from .figures import Figure, setting, show
from .peers.on_penstock import config
from .peers.watched import resident
from .presets import model_folder

_SIDE, _PICTURES = 224, 16
_ASK_SECONDS = 30.0
_TOKENS = 8


class Portion(msgspec.Struct):
    """What was measured in one part of the time: milliseconds, and memory at its end."""

    takes: list[float] = []
    questions: list[float] = []
    resident: int | None = None
    pages: int = 0
    rows: int = 0


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    setup = config(options.dtype, options.device)
    async with await Engine.load(model_folder(options.model), config=setup) as engine:
        gc.collect()
        gc.freeze()  # as `penstock serve` does: a walk over a model's objects takes a third of a second
        request = Request(format="turns", video_fps=options.fps, window=Window(rows=options.window))
        parts = await _watch(engine, request, options.minutes * 60, options.part * 60)
        where = setting("endless", options.model, engine.info.dtype, engine.info.device, len(parts))
    show(where, figures(parts, options.part), options.json)
    return 0


async def _watch(engine: Engine, request: Request, seconds: float, each: float) -> list[Portion]:
    """`seconds` of media time, in parts of `each`."""
    pictures = np.random.default_rng(0).integers(0, 256, (_PICTURES, _SIDE, _SIDE, 3), dtype=np.uint8)
    parts, pair, asked = [Portion()], 0, 0.0
    step_s = 1 / (request.video_fps or 1.0)
    async with await engine.stream(request) as stream:
        while pair * 2 * step_s < seconds:
            now = pair * 2 * step_s
            if now >= each * len(parts):
                _count(engine, parts[-1])
                parts.append(Portion())
            began = time.perf_counter()
            for frame in (2 * pair, 2 * pair + 1):
                await stream.append(VideoFrame(pictures[frame % _PICTURES], pts_us=round(frame * step_s * 1e6)))
            await _taken_in(stream)
            parts[-1].takes.append((time.perf_counter() - began) * 1e3)
            pair += 1
            if now >= asked + _ASK_SECONDS:
                asked = now
                parts[-1].questions.append(await _answer(stream))
        _count(engine, parts[-1])
    return parts


async def _taken_in(stream: Stream) -> None:
    async for event in stream:
        if isinstance(event, Appended):
            return


async def _answer(stream: Stream) -> float:
    """Milliseconds from a question to its first token; the reply has ended then."""
    began, first = time.perf_counter(), 0.0
    reply = await stream.ask("What do you see?", SamplingParams(max_tokens=_TOKENS, ignore_eos=True))
    async for _ in reply:
        first = first or time.perf_counter() - began
    return first * 1e3


def _count(engine: Engine, part: Portion) -> None:
    numbers = engine.statistics()
    part.resident = next(iter(resident()), None)
    part.pages = numbers["pages"] - numbers["pages_free"]
    part.rows = sum(stream["rows"] for stream in numbers["window_by_stream"].values())


def figures(parts: list[Portion], minutes: float) -> Iterator[Figure]:
    """One value a part; what may grow is compared with the part before it, the first of all is not."""
    case = f"parts of {minutes:g} min"
    for what, lists in (
        ("taking in a pair", [part.takes for part in parts]),
        ("question to first token", [part.questions for part in parts]),
    ):
        for percent in (50, 99):
            values = [percentile(values, percent) if values else None for values in lists]
            yield Figure(bench="endless", case=case, what=f"{what}, p{percent}", unit="ms", rounds=values)
        middle = [statistics.median(values) if values else None for values in lists]
        yield Figure(
            bench="endless", case=case, what=f"{what}, slope", unit="% an hour", rounds=[_slope(middle, minutes)]
        )
    megabytes = [None if part.resident is None else part.resident / 2**20 for part in parts]
    yield Figure(bench="endless", case=case, what="memory of the process", unit="MiB", rounds=megabytes)
    yield Figure(bench="endless", case=case, what="pages", unit="pages", rounds=[part.pages for part in parts])
    yield Figure(
        bench="endless", case=case, what="rows of the stream", unit="rows", rounds=[part.rows for part in parts]
    )


def _slope(middles: list[float | None], minutes: float) -> float | None:
    """How much a value grows in an hour, by a straight line through the parts after the first; None for fewer than
    three."""
    known = [(place * minutes / 60, value) for place, value in enumerate(middles[1:]) if value is not None]
    if len(known) < 3:
        return None
    hours, values = (np.array(column) for column in zip(*known, strict=True))
    slope, start = np.polyfit(hours, values, 1)
    return float(100 * slope / start)
