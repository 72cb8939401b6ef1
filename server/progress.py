"""What is shown while a model is loaded: its name and the seconds so far, on a terminal only."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable


@contextlib.asynccontextmanager
async def loading(model: str, show: Callable[[str], None]) -> AsyncIterator[None]:
    """Call `show` with a line at once and each second until the end, and then with an empty one."""

    async def tick() -> None:
        seconds = 0
        while True:
            show(f"loading {model} ..." + (f" {seconds} s" if seconds else ""))
            await asyncio.sleep(1)
            seconds += 1

    ticking = asyncio.create_task(tick(), name="loading")
    try:
        await asyncio.sleep(0)
        yield
    finally:
        ticking.cancel()
        show("")


def on_terminal(line: str) -> None:
    """Put `line` in the place of the last one, where stderr is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
