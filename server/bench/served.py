"""A server for a benchmark: one that is named with `--url`, or `penstock serve` in a process of its own.

In: the options. Out: its address, while it runs. It knows neither engine nor torch.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from typing import NamedTuple

from ...streams.requests.request import SamplingParams
from ..errors import ConfigError, EngineFailedError
from .figures import progress

_ANNOUNCED = "penstock: serving on "


class Served(NamedTuple):
    """Where a server is, and what it computes with."""

    url: str
    dtype: str
    device: str


def greedy(tokens: int) -> SamplingParams:
    """A reply of exactly so many tokens."""
    return SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)


@contextlib.asynccontextmanager
async def served(options: argparse.Namespace) -> AsyncIterator[Served]:
    """The server that is measured. What a server of its own says on stderr goes to stderr.

    ConfigError for a model beside `--url`, EngineFailedError if the server does not start.
    """
    if options.url is not None:
        given = [name for name in ("model", "dtype", "device") if getattr(options, name) not in (None, "auto")]
        if given:
            raise ConfigError(f"--{given[0]}: expected a model that is served here, got --url")
        yield Served(options.url, "as served", "as served")
        return
    from .presets import model_folder

    words = ["--device", options.device, "--dtype", options.dtype, "--port", "0", "--log-level", "warning"]
    words += ["--max-connections", str(options.most_streams + 2)]
    model = await asyncio.to_thread(model_folder, options.model)
    command = [sys.executable, "-m", "penstock.server.cli", "serve", model, *words]
    progress("starting a server")
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        if not line.startswith(_ANNOUNCED):
            raise EngineFailedError(f"the server ended with code {await process.wait()}")
        facts = re.search(r", (\w+) on ([\w:]+)", (await process.stdout.readline()).decode())
        dtype, device = facts.groups() if facts else (options.dtype, options.device)
        yield Served(line.removeprefix(_ANNOUNCED).strip(), dtype, device.rstrip(":"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
