"""A TCP line between a client and a server that breaks where a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from harness import until


class Wire:
    """A TCP line between client and server, which breaks: each connection after so many bytes, in both directions
    together."""

    def __init__(self, url: str, breaks: Iterator[int]) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._there = (host, int(port))
        self._breaks = breaks
        self._ends: list[asyncio.StreamWriter] = []
        self._gone: list[asyncio.StreamWriter] = []
        self.broken = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends or breaks."""
        left = next(self._breaks, 10**9)
        there, on = await asyncio.open_connection(*self._there)
        ends = [writer, on]
        self._ends += ends

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            nonlocal left
            with contextlib.suppress(OSError):
                while data := await source.read(4096):
                    target.write(data[:left])
                    left -= len(data)
                    if left <= 0:
                        self.broken += 1
                        break
            for end in ends if writer not in self._gone else ():
                end.transport.abort() if left <= 0 else end.close()

        await asyncio.gather(pump(reader, on), pump(there, writer))

    def lose(self) -> None:
        """Break all connections now, for the clients only: the server notices nothing."""
        self._gone += self._ends[::2]
        for end in self._gone:
            end.transport.abort()

    def cut(self) -> None:
        """Break all connections now."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()


@contextlib.asynccontextmanager
async def line(url: str, breaks: list[int]) -> AsyncIterator[tuple[str, Wire]]:
    """A line to the server, and its address."""
    wire = Wire(url, iter(breaks))
    server = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", wire
    finally:
        server.close()
        wire.cut()
        await server.wait_closed()
        await until(lambda: len(asyncio.all_tasks()) < 40)
