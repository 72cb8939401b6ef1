"""`penstock bench bargein`: from the end of speech to the first token of the reply, on the public `Engine`.

Where no reply ran, and where one ran that the speech has cut. Both in turn, with sound at the pace of a microphone, on
copies of one stream with this much history.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from ... import AudioChunk, Engine, Request, SpeechStopped, Stream, Text, Token, TurnDetection
from .figures import Figure, per_round, progress, setting, show
from .peers.on_penstock import config
from .presets import model_folder
from .served import greedy

_RATE, _CHUNK = 16_000, 1_600
_TURNS = TurnDetection(detector="energy", interrupt_ms=200)
_LONG, _TAKEN = 2_000, 8  # tokens of the reply that is cut, and how many are taken before somebody speaks
_BESIDE = 4_096  # rows of the cache beside the history


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    rows = max(options.histories)
    setup = msgspec.structs.replace(config(options.dtype, options.device), kv_tokens=rows + 2 * _BESIDE)
    found: dict[int, dict[str, list[float | None]]] = {}
    async with await Engine.load(model_folder(options.model), config=setup) as engine:
        for history in options.histories:
            times = found[history] = {"ordinary": [], "barge-in": []}
            request = Request(format="turns", turn_detection=_TURNS, params=greedy(options.tokens))
            async with await engine.stream(request) as stream:
                await _fill(stream, history)
                for number in range(options.rounds + 1):  # the first one is not counted
                    progress(f"{history} rows, round {number} of {options.rounds}")
                    for name in list(times) if number % 2 == 0 else list(times)[::-1]:
                        seconds = await _one(stream, cuts=name == "barge-in")
                        times[name] += [seconds] if number else []
        where = setting("bargein", options.model, engine.info.dtype, engine.info.device, options.rounds)
    show(where, _figures(found), options.json)
    return 0


async def _fill(stream: Stream, rows: int) -> None:
    """Words of at least so many rows."""
    there = 0
    while there < rows:
        await stream.append(Text("red circle " * max(1, (rows - there) // 4)))
        await (await stream.ask("What?", greedy(1))).text()
        there = sum(len(run.ids) for run in await stream.transcript())


async def _one(source: Stream, cuts: bool) -> float:
    """Seconds from the end of the sound that ends the speech to the first token of the reply to it. `cuts`: a reply
    runs when somebody begins to speak."""
    async with await source.fork() as stream:
        if cuts:
            reply = await stream.ask("What?", greedy(_LONG))
            async for token in reply:
                if token.index + 1 >= _TAKEN:
                    break
        ended = asyncio.create_task(_speak(stream), name="bench.bargein.speak")
        turn = None
        async for event in stream:
            if isinstance(event, SpeechStopped):
                turn = event
            elif isinstance(event, Token) and turn is not None:
                return time.perf_counter() - await ended
        raise RuntimeError("expected a reply to what was said, got the end of the stream")


async def _speak(stream: Stream) -> float:
    """A second of a tone and the silence that ends it, at the pace of a microphone. Returns when the last of it
    was handed in."""
    times = np.arange(_RATE * 16 // 10)
    sound = (np.sin(times / 6) * 0.3 * (times < _RATE)).astype(np.float32)
    began = last = time.perf_counter()
    for start in range(0, len(sound), _CHUNK):
        await asyncio.sleep(began + (start + _CHUNK) / _RATE - time.perf_counter())
        last = time.perf_counter()
        await stream.append(AudioChunk(sound[None, start : start + _CHUNK], _RATE, start * 1_000_000 // _RATE))
    return last


def _figures(found: dict[int, dict[str, list[float | None]]]) -> Iterator[Figure]:
    for history, times in found.items():
        ordinary, cut = times["ordinary"], times["barge-in"]
        common: dict[str, Any] = {"bench": "bargein", "case": f"{history} rows", "unit": "s"}
        yield Figure(what="ordinary turn: end of speech to first token", rounds=ordinary, **common)
        what = "barge-in: end of speech to first token"
        yield Figure(what=what, rounds=cut, against="ordinary", ratios=per_round(cut, ordinary), **common)
