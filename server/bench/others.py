"""How a running reply fares while other streams append.

In: how many others. Out: plain figures. Works on the public `Engine` and its streams, in this process. It does not know
how figures are printed.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import msgspec
import numpy as np

from ... import Engine, EngineConfig, Request, SamplingParams, VideoFrame
from .models import SIDE


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds between tokens of one reply while `others` streams append two frames a second each."""

    others: int
    tokens: int
    median_ms: float
    p95_ms: float
    worst_ms: float
    frames_appended: int


async def latencies(model: Path, others: list[int], tokens: int, config: EngineConfig) -> list[Latency]:
    """Time between the tokens of one reply with each number of other streams that append two frames a second."""
    async with await Engine.load(model, config=config) as engine:
        return [await _latency(engine, count, tokens) for count in others]


async def _latency(engine: Engine, others: int, tokens: int) -> Latency:
    frames = 0
    stop = asyncio.Event()
    begun = asyncio.Semaphore(0)  # one for each camera that has sent its first frame

    async def camera(place: int) -> None:
        nonlocal frames
        draw = np.random.default_rng(place)
        async with await engine.stream(Request(format="turns", policy="latest")) as stream:
            start = time.perf_counter()
            count = 0
            while not stop.is_set():
                pixels = draw.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
                await stream.append(VideoFrame(pixels, count * 500_000))
                count += 1
                frames += 1
                if count == 1:
                    begun.release()
                await asyncio.sleep(max(0.0, start + (count + place / max(1, others)) * 0.5 - time.perf_counter()))

    async with asyncio.TaskGroup() as group:
        for place in range(others):
            group.create_task(camera(place), name=f"bench.camera.{place}")
        for _ in range(others):
            await begun.acquire()
        async with await engine.stream(Request(format="live")) as stream:
            reply = await stream.ask("What do you see?", SamplingParams(max_tokens=tokens, temperature=0.0))
            times = [time.perf_counter() async for _ in reply]
        stop.set()
    gaps = sorted((later - earlier) * 1000 for earlier, later in zip(times, times[1:], strict=False))
    return Latency(
        others,
        len(times),
        round(statistics.median(gaps), 3),
        round(gaps[int(len(gaps) * 0.95)], 3),
        round(gaps[-1], 3),
        frames,
    )
