"""Servers for the page's tests: in a process of its own, which can be killed, or in a thread of this one; and a line to
one, which can be cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from penstock import Engine
from penstock.engine.config import EngineConfig
from penstock.server import app
from penstock.server.config import ServerConfig


class Server:
    """`penstock serve` on one port, which can be killed."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Serve Brook."""
        command = [sys.executable, "-m", "penstock.server.cli", "serve", "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        assert "serving on" in self._process.stdout.readline()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextlib.contextmanager
def here(model: Path | None, kv_tokens: int = 8192, **options: Any) -> Iterator[str]:
    """The address of a server, with these options, of a model or Brook, in a thread."""
    address: Future[str] = Future()
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def work() -> None:
        end = asyncio.Event()
        ends.append((asyncio.get_running_loop(), end))
        async with await Engine.load(model, config=EngineConfig(kv_tokens=kv_tokens)) as engine:
            config = ServerConfig(**{"port": 0, **options})
            serving = asyncio.create_task(app.serve(engine, config, on_listening=address.set_result))
            await end.wait()
            serving.cancel()
            await asyncio.wait([serving])

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            if address.done():
                raise
            address.set_exception(error)

    thread = threading.Thread(target=run, name="server of a page")
    with mock.patch.object(app, "_signals", lambda stop: contextlib.nullcontext()):  # those are the main thread's
        thread.start()
        try:
            yield f"{address.result()}/"
        finally:
            for loop, end in ends:
                if thread.is_alive():
                    loop.call_soon_threadsafe(end.set)
            thread.join()


class Line:
    """A TCP line to the server at `url`: `cut` breaks all connections, as a network that goes does it. While `up` is
    False new ones break too; where they lead to may be changed."""

    def __init__(self, url: str) -> None:
        self.leads_to = url
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.up = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                here, address = self._listener.accept()[0], urlsplit(self.leads_to)
                there = socket.create_connection((address.hostname, address.port))
                self._ends += [here, there]
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()
                if not self.up:
                    self.cut()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Break all connections now, without a farewell."""
        for end in self._ends:
            with contextlib.suppress(OSError):  # the other side has broken it already
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)
            end.close()
        self._ends.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


@contextlib.contextmanager
def line(url: str) -> Iterator[Line]:
    """A line to a server, which is cut in the end."""
    made = Line(url)
    try:
        yield made
    finally:
        made.close()
