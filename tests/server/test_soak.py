"""What stays open for ever loses nothing and does not grow, whatever happens to it."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import pytest
from broken_line import line
from harness import serving, until
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.server.client import connect
from soak import ACTS, PAIR_US, Clock, Day, at_rest, consistent

from tests.fixtures.recipe import model_path

CONFIG = EngineConfig(kv_tokens=640, page_tokens=16, slots=8)


# Of what was sent a server keeps so much for a client that may come back.
KEPT_BYTES = 1 << 15


async def held(engine: Engine, day: Day) -> tuple[int, int]:
    """Blocks of memory and objects of this process, when nothing runs."""
    await until(lambda: at_rest(engine, len(day.cameras)))
    consistent(engine, len(day.cameras))
    gc.collect()
    return sys.getallocatedblocks(), len(gc.get_objects())


async def soak(
    patch: pytest.MonkeyPatch, folder: Path, *, seed: int, pairs: int, times: int, blocks: int, objects: int
) -> None:
    """`pairs` pairs and `times` times each act, twice. After the second time there may be so much more than after the
    first."""
    clock = Clock(patch)
    options = {"unread_bytes": KEPT_BYTES, "snapshots": str(folder)}
    async with await Engine.load(model_path("omni"), config=CONFIG) as engine:
        async with serving(engine, **options) as url, line(url, []) as (there, wire):
            async with connect(there) as connection:
                day = Day(engine, connection, wire, clock, seed)
                await day.open()
                await day.live(pairs, times, ACTS)
                before = await held(engine, day)
                await day.live(pairs, times, ACTS)
                after = await held(engine, day)
                more = [late - early for early, late in zip(before, after, strict=True)]
                assert more[0] <= blocks and more[1] <= objects, f"more blocks and objects: {more}"
                await day.close()
                assert connection.resumed >= times and day.did["pages moved"]
            await until(lambda: at_rest(engine, 0))
        numbers = consistent(engine, 0)
        assert numbers["pages_free"] == numbers["pages"] and not numbers["pages_host"] and not numbers["span_bytes"]


@pytest.mark.timeout(120)
def test_minutes_of_two_cameras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is kept of the newest thousand measurements is not full yet: it is some blocks more for each."""
    asyncio.run(soak(monkeypatch, tmp_path, seed=1, pairs=12, times=2, blocks=2_000, objects=200))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_day_of_two_cameras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """24 hours of media and 200 times all that may happen. Snapshots of as many pages as none before leave a ctypes
    type behind, in safetensors: some eighty blocks for each number of pages, of which there are few."""
    pairs = round(24 * 3600e6 / PAIR_US)
    asyncio.run(soak(monkeypatch, tmp_path, seed=2, pairs=pairs // 2, times=100, blocks=2_500, objects=200))
