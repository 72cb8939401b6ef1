"""Threads that own work which is not the model's: one call at a time, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ..engine.runner.threads import compute_alone

P = ParamSpec("P")
R = TypeVar("R")


class WorkThread:
    """One thread. Torch computes in it alone, without others to help: these belong to the thread that steps."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=compute_alone)

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `work` in the thread. A cancelled wait does not cut the call short; its result is dropped."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))

    def stop(self) -> None:
        """Wait for the call that runs; calls that have not begun are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
