"""An encoder for tests: the app of `penstock encode-serve` on a port of its own, which may be stopped like a process
that is killed, and started again in the same place."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from penstock.engine.config import EngineConfig
from penstock.engine.loading.towers import LoadedTowers, load_towers
from penstock.server.app import bind, serve_app
from penstock.server.config import ServerConfig
from penstock.server.encode_service import encode_app

from tests.fixtures.recipe import model_path


@cache
def towers_of(name: str) -> LoadedTowers:
    return load_towers(model_path(name), EngineConfig())


class Slow:
    """Towers that begin to encode when they may."""

    def __init__(self, towers: Any) -> None:
        self._towers = towers
        self.go = threading.Event()
        self.begun = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._towers, name)

    def encode(self, batch: Any) -> Any:
        self.begun.set()
        assert self.go.wait(20)
        return self._towers.encode(batch)


class EncoderProcess:
    """One place at which an encoder is, or is not."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._port = 0
        self._task: asyncio.Task[None] | None = None
        self.service: Any = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def start(self, loaded: LoadedTowers) -> None:
        config = ServerConfig(port=self._port, max_message_bytes=1 << 24, **self._options)
        listener: socket.socket = bind(config)
        self._port = listener.getsockname()[1]
        app = encode_app(loaded, config)
        self.service = app.state.service
        ready = asyncio.Event()
        self._task = asyncio.create_task(serve_app(app, config, listener, lambda url: ready.set()), name="encoder")
        await ready.wait()

    async def stop(self) -> None:
        """Its connections are cut, whatever is on its way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def end(self) -> None:
        await self.stop()
        await asyncio.to_thread(self.service.stop)


@contextlib.asynccontextmanager
async def encoding(name: str, **options: Any) -> AsyncIterator[EncoderProcess]:
    """An encoder with the towers of this model."""
    process = EncoderProcess(**options)
    await process.start(towers_of(name))
    try:
        yield process
    finally:
        await process.end()
