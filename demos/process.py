"""A `penstock serve` process on a free port, for as long as it is needed.

In comes a model; out comes the URL of a server that is ready. Knows no wire and no model library.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable

START_SECONDS = 600.0
STOP_SECONDS = 30.0
_ANNOUNCED = "penstock: serving on "


@contextlib.asynccontextmanager
async def running_server(model: str | None, waiting: Callable[[str], None]) -> AsyncIterator[str]:
    """Start a server, wait until it is ready, give its URL; afterwards end it and wait for it.

    OSError with the end of its log where it does not start. Cancelled, it ends the process too.
    """
    command = [sys.executable, "-m", "penstock.server.cli", "serve", "--port", "0", *([model] if model else [])]
    environment = {name: value for name, value in os.environ.items() if name != "PENSTOCK_API_KEY"}  # It is ours alone.
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=log, env=environment, start_new_session=True
        )
        try:
            waiting("starting the server and loading the model ...")
            try:
                async with asyncio.timeout(START_SECONDS):
                    url = await _announced(process)
                    await _ready(url)
            except (OSError, TimeoutError) as error:
                log.seek(0)
                last = log.read().decode(errors="replace")[-2000:]
                raise OSError(f"the server did not start: {error or 'timeout'}\n{last}") from None
            yield url
        finally:
            await _stop(process)


async def _announced(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async for line in process.stdout:
        text = line.decode().strip()
        if text.startswith(_ANNOUNCED):
            return text.removeprefix(_ANNOUNCED)
    raise OSError(f"it ended with exit code {await process.wait()}")


async def _ready(url: str) -> None:
    while True:
        with contextlib.suppress(urllib.error.HTTPError):  # 503: it still warms up.
            await asyncio.to_thread(_get, f"{url}/ready")
            return
        await asyncio.sleep(0.1)


def _get(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        response.read()


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
