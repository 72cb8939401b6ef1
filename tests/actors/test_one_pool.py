"""All that an engine computes is computed by one thread, so that torch keeps one pool of threads for it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.streams.requests.request import Request, SamplingParams

TASKS = Path("/proc/self/task")
MANY = 9  # threads that torch computes with: more than other libraries start meanwhile


def others() -> int:
    """Threads of this process that are not Python's."""
    return len(list(TASKS.iterdir())) - threading.active_count()


@pytest.mark.skipif(not TASKS.exists(), reason="the threads of a process are counted where Linux has them")
def test_an_engine_has_one_pool(loaded: Loaded) -> None:
    """Its cache has 2 MiB, for which torch would take all threads of the one that makes it."""

    async def reply() -> int:
        before = others()
        async with Engine(loaded, EngineConfig(kv_tokens=4096, threads=MANY)) as engine:
            params = SamplingParams(max_tokens=4, ignore_eos=True)
            await engine.generate(Request(prompt="what do you see?"), params)
            await engine.generate(Request(prompt="what do you hear now? " * 40), params)
            return others() - before

    threads = torch.get_num_threads()
    torch.set_num_threads(MANY)
    try:
        with ThreadPoolExecutor(1) as fresh:  # a thread that has computed nothing has no pool
            made = fresh.submit(lambda: asyncio.run(reply())).result()
    finally:
        torch.set_num_threads(threads)
    assert 0 < made < 2 * (MANY - 1)
