"""`penstock bench asides`: many questions at once about one camera, on the public `Engine` in this process.

Once the camera's window is full, all ask at the same time: aside, which shares the camera's rows, or each on a stream
of its own that is first shown the same media once more. The second takes so long that few of them stand for many. None
ends before all are answered, so all are there together.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec

from ... import Engine, Reply, Request, Stream, Window
from .figures import Figure, per_round, progress, setting, show
from .pairs import Noise, taken_in
from .peers.on_penstock import config
from .peers.watched import resident
from .presets import model_folder
from .served import greedy

# Rows of the KV cache that one who asks aside may take: a copy of the last page of each part, its words, its answer.
_ASIDE_ROWS = 160
_QUESTION = "What do you see?"


class Askers(msgspec.Struct):
    """What it took until all were answered: seconds, and at the most pages beside the camera's and bytes of memory more
    than before. moved: pages that did not fit and were moved to host memory."""

    count: int
    seconds: float = 0.0
    pages: int = 0
    grown: int | None = None
    moved: int = 0


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    beside = max(options.asides * _ASIDE_ROWS, options.replays * (options.window + _ASIDE_ROWS))
    setup = msgspec.structs.replace(
        config(options.dtype, options.device),
        kv_tokens=options.window + beside,
        slots=max(options.asides, options.replays) + 1,
        prefix_cache=False,  # who asks at another moment begins with another frame, and finds no pages
    )
    found: dict[str, list[Askers]] = {"aside": [], "replay": []}
    async with await Engine.load(model_folder(options.model), config=setup) as engine:
        gc.collect()
        gc.freeze()
        async with await engine.stream(_request(options)) as camera:
            asking = _Asking(engine, camera, options.fps, options.tokens)
            await asking.watch(options.window)
            for number in range(options.rounds):
                for name in list(found) if number % 2 == 0 else list(found)[::-1]:
                    progress(f"round {number + 1} of {options.rounds}: {name}")
                    count = options.asides if name == "aside" else options.replays
                    found[name].append(await asking.ask(name, count))
        page_mib = engine.info.memory.kv_bytes / engine.info.memory.pages / 2**20
        where = setting("asides", options.model, engine.info.dtype, engine.info.device, options.rounds)
    show(where, _figures(found, page_mib), options.json)
    return 0


def _request(options: argparse.Namespace) -> Request:
    return Request(format="turns", video_fps=options.fps, window=Window(rows=options.window))


class _Asking:
    """Those who ask about one camera."""

    def __init__(self, engine: Engine, camera: Stream, fps: float, tokens: int) -> None:
        self._engine, self._camera, self._noise, self._params = engine, camera, Noise(fps), greedy(tokens)
        self._shown = 0

    async def watch(self, rows: int) -> None:
        """Show the camera's stream pairs until its window of `rows` rows has let some go."""
        while not self._window()["begin"]:
            async for _ in taken_in(self._camera, [self._noise.pair(self._shown)]):
                pass
            self._shown += 1

    async def ask(self, name: str, count: int) -> Askers:
        """`count` at once, each in this way."""
        askers, before = Askers(count), self._pages()
        memory = _memory()
        all_answered = asyncio.Barrier(count)

        async def one() -> None:
            async with self._asked(name) as reply:
                await reply.text()
                await all_answered.wait()
                self._look(askers, before, memory)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one(), name="bench.asides.one")
        askers.seconds = time.perf_counter() - began
        return askers

    def _look(self, askers: Askers, pages: int, memory: int | None) -> None:
        """Note what is held now beside what was held before."""
        askers.pages = max(askers.pages, self._pages() - pages)
        askers.moved = max(askers.moved, self._engine.statistics()["pages_host"])
        now = _memory()
        askers.grown = None if memory is None or now is None else max(askers.grown or 0, now - memory)

    def _asked(self, name: str) -> AbstractAsyncContextManager[Reply]:
        return self._camera.aside(_QUESTION, self._params) if name == "aside" else self._replayed()

    @asynccontextmanager
    async def _replayed(self) -> AsyncIterator[Reply]:
        """A stream of its own, which is shown what the camera's window has."""
        first = round((self._window()["since_us"] or 0) / 1e6 / self._noise.pair_seconds)
        async with await self._engine.stream(self._camera.request) as stream:
            async for _ in taken_in(stream, map(self._noise.pair, range(first, self._shown))):
                pass
            yield await stream.ask(_QUESTION, self._params)

    def _window(self) -> dict[str, int | None]:
        return self._engine.statistics()["window_by_stream"][self._camera.id]

    def _pages(self) -> int:
        numbers = self._engine.statistics()
        return numbers["pages"] - numbers["pages_free"]


def _memory() -> int | None:
    return next(iter(resident()), None)


def _figures(found: dict[str, list[Askers]], page_mib: float) -> Iterator[Figure]:
    """For each that asks, and for all. Ratios are of what one takes, by round."""
    asides = found["aside"]
    for name, rounds in found.items():
        count = rounds[0].count
        beside: dict[str, Any] = {"bench": "asides", "case": f"{count} at once", "engine": name}
        if any(askers.moved for askers in rounds):
            beside["note"] = f"up to {max(askers.moved for askers in rounds)} pages did not fit and were moved away"
        for what, unit, each in (
            ("pages of each", "pages", lambda askers: askers.pages / askers.count),
            ("time of each", "s", lambda askers: askers.seconds / askers.count),
        ):
            values, those = list(map(each, rounds)), list(map(each, asides))
            ratios: dict[str, Any] = {} if name == "aside" else {"against": "aside", "ratios": per_round(values, those)}
            yield Figure(what=what, unit=unit, rounds=values, **beside, **ratios)
        yield Figure(
            what="KV cache of all", unit="MiB", rounds=[askers.pages * page_mib for askers in rounds], **beside
        )
        yield Figure(what="time of all", unit="s", rounds=[askers.seconds for askers in rounds], **beside)
        grown = [None if askers.grown is None else askers.grown / 2**20 for askers in rounds]
        yield Figure(what="memory of the process, more than before", unit="MiB", rounds=grown, **beside)
