"""Threads that own a model's work: one call at a time, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class WorkThread:
    """One thread; `turn()` is held around each call (a step's side of the gate between steps and towers)."""

    def __init__(self, name: str, turn: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turn = turn

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `work` in the thread. A cancelled wait does not cut the call short; its result is dropped."""

        def call() -> R:
            with self._turn():
                return work(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def stop(self) -> None:
        """Wait for the call that runs; calls that have not begun are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
