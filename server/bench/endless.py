"""`penstock bench endless`: hours of one camera, pushed as fast as they go, on the public `Engine` in this process.

Frames come in pairs, as the model takes them; every 25 seconds of media time a question is asked. How long that takes
should stay as it is once the window has filled, and so should memory. Other ways to live on (ways.py) can be
measured beside it: each is shown one minute of media time in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ... import Engine
from .arithmetic import percentile
from .chart import Curve, Panel, draw
from .figures import Figure, per_round, progress, setting, show
from .peers.on_penstock import config
from .peers.watched import resident
from .presets import model_folder
from .ways import FULL_ROWS, Way

_ASK_SECONDS = 25.0  # not as often as rows leave, or one kind of pair would always pay for it
_SLICE_SECONDS = 60.0
PAIR, BEHIND, QUESTION = "taking in a pair", "taking in a pair after a question", "question to first token"


class Slice(msgspec.Struct):
    """A minute of media time: milliseconds of each kind, and what there was at its end.

    turns: how often rows had left, or a new stream had been opened. resident, pages: of the whole process.
    """

    pair: list[float] = []
    behind: list[float] = []
    question: list[float] = []
    rows: int = 0
    turns: int = 0
    resident: int | None = None
    pages: int = 0

    def of(self, what: str) -> list[float]:
        """The milliseconds of one kind."""
        return {PAIR: self.pair, BEHIND: self.behind, QUESTION: self.question}[what]


class Trend(NamedTuple):
    """A straight line through values over hours: how much it rises in an hour, in percent, and the standard error."""

    percent: float
    error: float


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    setup = config(options.dtype, options.device)
    if options.beside:
        setup = msgspec.structs.replace(setup, kv_tokens=FULL_ROWS + 4 * options.window)
    names = ("window", *options.beside)
    each = max(1, math.ceil(options.part * 60 / _SLICE_SECONDS))  # slices of a part
    seconds = options.part * 60 / each
    async with await Engine.load(model_folder(options.model), config=setup) as engine:
        gc.collect()
        gc.freeze()  # as `penstock serve` does: a walk over a model's objects takes a third of a second
        ways = [Way(name, engine, options.fps, options.window) for name in names]
        slices = await _watch(engine, ways, math.ceil(options.minutes * 60 / seconds), seconds)
        ended = {way.name: way.ended for way in ways if way.ended}
        where = setting(
            "endless", options.model, engine.info.dtype, engine.info.device, math.ceil(options.minutes / options.part)
        )
    show(where, figures(slices, each, seconds, ended), options.json)
    if options.plot:
        options.plot.write_text(draw(*_panels(slices, seconds)), encoding="utf-8")
    return 0


async def _watch(engine: Engine, ways: Sequence[Way], count: int, seconds: float) -> dict[str, list[Slice]]:
    """`count` slices of each way, of so many seconds of media time. Every second time the order is turned round."""
    found: dict[str, list[Slice]] = {way.name: [] for way in ways}
    for way in ways:
        await way.open()
    for number in range(count):
        progress(f"{number} of {count}")
        for way in ways if number % 2 == 0 else ways[::-1]:
            one = await _slice(way, number * seconds, (number + 1) * seconds)
            one.pages = engine.statistics()["pages"] - engine.statistics()["pages_free"]
            one.resident = next(iter(resident()), None)
            found[way.name].append(one)
    for way in ways:
        await way.close()
    return found


async def _slice(way: Way, start: float, stop: float) -> Slice:
    """What is shown and asked between these seconds of media time."""
    one = Slice()
    first, last = (round(time / way.pair_seconds) for time in (start, stop))
    for pair in range(first, last):
        times = one.behind if way.asked else one.pair
        if (took := await way.show(pair)) is None:
            break
        times.append(took)
        if (pair + 1) * way.pair_seconds % _ASK_SECONDS < way.pair_seconds and (waited := await way.ask()) is not None:
            one.question.append(waited)
    one.rows, one.turns = way.rows, way.turns
    return one


def figures(slices: dict[str, list[Slice]], each: int, seconds: float, ended: dict[str, str]) -> Iterator[Figure]:
    """One value a part of `each` slices; what may grow is told by all slices since the window was full."""
    case = f"parts of {each * seconds / 60:g} min"
    filled = next((place for place, one in enumerate(slices["window"]) if one.turns), len(slices["window"])) + 1
    parts = {name: [ones[place : place + each] for place in range(0, len(ones), each)] for name, ones in slices.items()}
    windowed: dict[str, list[float | None]] = {}
    for name, of in parts.items():
        note = _note(name, slices[name], ended, seconds)
        beside: dict[str, Any] = {"bench": "endless", "case": case, "engine": name, "note": note}
        for what in (PAIR, BEHIND, QUESTION):
            for percent in (50, 99):
                values = [_percentile(part, what, percent) for part in of]
                key = f"{what}, p{percent}"
                mine = windowed.setdefault(key, values)
                against: dict[str, Any] = (
                    {} if name == "window" else {"against": "window", "ratios": per_round(values, mine)}
                )
                yield Figure(what=key, unit="ms", rounds=values, **beside, **against)
        for what in (PAIR, QUESTION):
            above = [_over(part, what) if place * each >= filled else None for place, part in enumerate(of)]
            yield Figure(what=f"{what}, p99 / p50", unit="x", rounds=above, **beside)
            minutes = enumerate(slices[name][filled:])
            line = trend([(place * seconds / 3600, _percentile([one], what, 50)) for place, one in minutes])
            rise, error = (None, None) if line is None else line
            yield Figure(what=f"{what}, slope", unit="% an hour", rounds=[rise], **beside)
            yield Figure(what=f"{what}, standard error of the slope", unit="% an hour", rounds=[error], **beside)
        yield Figure(what="rows of the stream", unit="rows", rounds=[part[-1].rows for part in of], **beside)
        turns = [0, *(part[-1].turns for part in of)]
        what = "rows left" if name == "window" else "new streams"
        yield Figure(what=what, unit="times", rounds=[after - before for before, after in pairwise(turns)], **beside)
    yield from _memory(parts, case)


def _memory(parts: dict[str, list[list[Slice]]], case: str) -> Iterator[Figure]:
    """Of the whole process, when the way that was measured last in a part had ended it."""
    ends = [[ones[-1] for ones in part] for part in zip(*parts.values(), strict=True)]
    beside: dict[str, Any] = {"bench": "endless", "case": case, "engine": "all" if len(parts) > 1 else "window"}
    most = [max((one.resident for one in part if one.resident is not None), default=None) for part in ends]
    megabytes = [None if one is None else one / 2**20 for one in most]
    yield Figure(what="memory of the process", unit="MiB", rounds=megabytes, **beside)
    yield Figure(what="pages", unit="pages", rounds=[max(one.pages for one in part) for part in ends], **beside)


def _note(name: str, slices: list[Slice], ended: dict[str, str], seconds: float) -> str:
    if name not in ended:
        return ""
    lived = sum(len(one.pair) + len(one.behind) > 0 for one in slices) * seconds / 60
    return f"ended in minute {lived:g} of media time: {ended[name]}"


def _values(slices: Sequence[Slice], what: str) -> list[float]:
    return list(chain.from_iterable(one.of(what) for one in slices))


def _percentile(slices: Sequence[Slice], what: str, percent: float) -> float | None:
    values = _values(slices, what)
    return percentile(values, percent) if values else None


def _over(slices: Sequence[Slice], what: str) -> float | None:
    values = _values(slices, what)
    return percentile(values, 99) / percentile(values, 50) if values else None


def trend(points: Sequence[tuple[float, float | None]]) -> Trend | None:
    """The line through (hours, value), least squares, in percent of its value in the middle; None for fewer than three
    values."""
    known = [(hours, value) for hours, value in points if value is not None]
    if len(known) < 3:
        return None
    hours, values = (np.array(column, dtype=np.float64) for column in zip(*known, strict=True))
    slope, start = np.polyfit(hours, values, 1)
    apart = values - (slope * hours + start)
    spread = math.sqrt(float(apart @ apart) / (len(known) - 2) / float(np.sum((hours - hours.mean()) ** 2)))
    return Trend(float(100 * slope / values.mean()), 100 * spread / float(values.mean()))


def _panels(slices: dict[str, list[Slice]], seconds: float) -> list[Panel]:
    """What the picture shows: medians and worst of each slice, over minutes of media time."""
    return [
        Panel(
            f"{what}, milliseconds",
            [
                Curve(
                    name,
                    [
                        ((place + 0.5) * seconds / 60, percentile(one.of(what), 50), max(one.of(what)))
                        for place, one in enumerate(ones)
                        if one.of(what)
                    ],
                )
                for name, ones in slices.items()
            ],
        )
        for what in (PAIR, QUESTION)
    ]
