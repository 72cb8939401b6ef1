"""What is shown while a model is loaded: its name and the seconds so far, on a terminal only."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Callable


@contextlib.asynccontextmanager
async def loading(model: str, show: Callable[[str], None]) -> AsyncIterator[None]:
    """Call `show` with a line at once and each second until the end, and then with an empty one."""

    async def tick() -> None:
        for seconds in itertools.count(1):
            await asyncio.sleep(1)
            show(f"loading {model} ... {seconds} s")

    show(f"loading {model} ...")
    ticking = asyncio.create_task(tick(), name="loading")
    try:
        yield
    finally:
        ticking.cancel()
        show("")


def on_terminal(line: str) -> None:
    """Put `line` in the place of the last one, where stderr is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
