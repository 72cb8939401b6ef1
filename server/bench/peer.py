"""The parent's side of an engine in a process of its own (peers/child.py).

In: which engine, and the Python that has it. Out: answers to cases. It knows neither torch nor the engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ..errors import ConfigError, EngineFailedError
from .figures import progress

_CHILD = Path(__file__).parent / "peers" / "child.py"
_LINE_BYTES = 1 << 24  # an answer has a time for each token
_CLOSE_S = 20.0
_PRELOADED = ("libtcmalloc_minimal.so.4", "libiomp5.so")
_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/lib")


class Peer:
    """A process that answers cases. `first` is what it said when it had started; of an engine, `about` says what it
    computes with."""

    def __init__(self, name: str, process: Process) -> None:
        self.first: dict[str, Any] = {}
        self._name, self._process = name, process

    @property
    def about(self) -> str:
        return self.first["loaded"]

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    async def run(self, case: dict[str, Any]) -> dict[str, Any]:
        """The answer to a case; an `error` if the process has ended, so that the other engines can go on."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(case).encode() + b"\n")
            return await self.read()
        except (EngineFailedError, ConnectionError) as error:
            return {"error": str(error)}

    async def read(self) -> dict[str, Any]:
        """The next line that it says. EngineFailedError where the process has ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise EngineFailedError(f"{self._name} ended with code {await self._process.wait()}")
        return json.loads(line)


@contextlib.asynccontextmanager
async def open_peer(name: str, python: str | None, model: str, dtype: str, device: str) -> AsyncIterator[Peer]:
    """Start the engine `name` and wait until it is loaded. Without `python` it runs under this one, with Penstock.

    ConfigError where that Python does not start, EngineFailedError where the engine does not.
    """
    progress(f"loading {name}")
    module = f"{__package__}.peers.child"
    command = [sys.executable, "-m", module] if python is None else [python, str(_CHILD)]
    environment = None if python is None else await asyncio.to_thread(_environment, python)
    command += [f"on_{name}", model, dtype, device]
    async with started(name, command, environment) as peer:
        yield peer


@contextlib.asynccontextmanager
async def started(name: str, command: list[str], environment: dict[str, str] | None = None) -> AsyncIterator[Peer]:
    """Run a command that answers cases, once it has said that it is ready. EngineFailedError where it does not."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, limit=_LINE_BYTES, env=environment
    )
    try:
        peer = Peer(name, process)
        peer.first = await peer.read()
        if "error" in peer.first:
            raise EngineFailedError(f"{name}: {peer.first['error']}")
        yield peer
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _environment(python: str) -> dict[str, str]:
    """What vLLM's page on CPUs asks for: tcmalloc and Intel's OpenMP preloaded if they are there, room for the cache.

    What the user has set stays.
    """
    try:
        asked = subprocess.run(
            [python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"--vllm: expected a Python that runs, got {python}: {error}") from None
    folders = [Path(asked.stdout.strip()) / "lib", *map(Path, _LIBRARIES)]
    found = [next((str(at / name) for at in folders if (at / name).exists()), None) for name in _PRELOADED]
    for name, path in zip(_PRELOADED, found, strict=True):
        progress(f"vllm: {name} {f'is preloaded from {path}' if path else 'is not there, so it is not preloaded'}")
    preloaded = ":".join(path for path in found if path)
    wanted = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_LOGGING_LEVEL": "WARNING", "LD_PRELOAD": preloaded}
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {name: value for name, value in wanted.items() if value} | inherited
