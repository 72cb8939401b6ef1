"""The WebSocket of a client that may be lost and found again: each message comes and goes once.

In come frames to send; out come the server's frames, in order. If the server keeps connections, both sides count what
they receive, and after a loss each sends once more what the other has not. Knows neither streams nor the wire's
commands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from . import wire
from .config import is_loopback
from .errors import ConnectionLostError

# Between two tries to reach the server again: at first, and at most.
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.05, 2.0
_answer_decoder = msgspec.json.Decoder(wire.Answer)


class _Refusal(msgspec.Struct):
    error: str


class LastingSocket:
    """One connection to the server at `url`, over one WebSocket after the other, or over one only (`resume` False).
    `key`: how a handshake shows the key.

    welcome: what the server said first. resumed: how often the connection was gone on with.
    """

    def __init__(self, url: str, key: dict[str, Any], resume: bool) -> None:
        self.url = url
        self._resumes = resume
        self.welcome: wire.Welcome
        self.resumed = 0
        self._key = key
        self._socket: ClientConnection
        self._kept: wire.KeptMessage | None = None
        self._received = 0  # frames of the server, since it keeps the connection
        self._sent: deque[str | bytes] = deque()  # frames that the server may not have
        self._first = 0  # the number of the first of them
        self._away = False  # no WebSocket is there
        self._closing = asyncio.Event()

    async def open(self) -> None:
        """Connect, read the welcome, and have the connection kept where the server does that.

        ConnectionLostError where the server refuses or cannot be reached.
        """
        self._socket, self.welcome = await self._connected()
        if not self._resumes or "resume_seconds" not in self.welcome.limits:
            return
        try:
            await self._socket.send(wire.encode_command(wire.Keep()))
            kept = _answer_decoder.decode(await self._socket.recv())
        except ConnectionClosed as error:
            raise lost(self.url, error) from None
        assert isinstance(kept, wire.KeptMessage)
        self._kept = kept

    async def send(self, frame: str | bytes) -> int:
        """Send one frame, now or when the server is reached again; returns its number. ConnectionLostError where the
        connection has gone for good."""
        number = self._first + len(self._sent)
        if self._kept is not None:
            self._sent.append(frame)
        if not self._away:
            try:
                await self._socket.send(frame)
            except ConnectionClosed as error:
                if not self._may_resume(error):
                    raise lost(self.url, error) from None
        return number

    def arrived(self, number: int) -> None:
        """The server has this frame of ours, and with it all before."""
        while self._sent and self._first <= number:
            self._sent.popleft()
            self._first += 1

    async def frames(self) -> AsyncIterator[str | bytes]:
        """The frames of the server until the connection ends; then raises ConnectionLostError."""
        while True:
            try:
                async for frame in self._socket:
                    self._received += 1
                    yield frame
                raise ConnectionLostError(f"{self.url}: closed")
            except ConnectionClosed as error:
                self._away = True
                if not self._may_resume(error) or not await self._resume():
                    raise lost(self.url, error) from None

    async def close(self) -> None:
        """Close it; idempotent."""
        self._closing.set()
        await self._socket.close()

    def _may_resume(self, error: ConnectionClosed) -> bool:
        """Whether the connection was lost, and not ended by one of both sides."""
        return self._kept is not None and error.rcvd is None and not self._closing.is_set()

    async def _resume(self) -> bool:
        """Reach the server again, and bring both sides to the same state. False where that cannot be any more."""
        assert self._kept is not None
        pause, clock = _FIRST_PAUSE_SECONDS, asyncio.get_running_loop()
        last = clock.time() + self._kept.seconds
        while not self._closing.is_set() and clock.time() < last:
            try:
                return await self._again()
            except ConnectionLostError as error:
                if error.status in (401, 403, 404):
                    return False
            except ConnectionClosed:
                pass  # lost again
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause)
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)
        return False

    async def _again(self) -> bool:
        """One try. False where the server does not have the connection any more."""
        assert self._kept is not None
        socket, _ = await self._connected(again=True)
        try:
            message = wire.Resume(token=self._kept.token, received=self._received)
            await socket.send(wire.encode_command(message))
            answer = _answer_decoder.decode(await socket.recv())
            if not isinstance(answer, wire.ResumedMessage):
                await socket.close()
                return False
            self.arrived(answer.received - 1)
            self._socket = socket
            place = self._first
            while place < self._first + len(self._sent):  # others may be added meanwhile
                await socket.send(self._sent[place - self._first])
                place += 1
        except BaseException:
            await socket.close()
            raise
        self._away = False
        self.resumed += 1
        return True

    async def _connected(self, again: bool = False) -> tuple[ClientConnection, wire.Welcome]:
        mark = ("&resume" if "?" in self.url else "?resume") if again else ""
        host = urlsplit(self.url).hostname or ""
        proxy = None if is_loopback(host) else True
        try:
            socket = await open_socket(self.url + mark, compression=None, max_size=None, proxy=proxy, **self._key)
        except InvalidStatus as error:
            status, why = error.response.status_code, _why(error.response.body)
            raise ConnectionLostError(f"{self.url}: refused with {status} {why}".strip(), status) from None
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise ConnectionLostError(f"{self.url}: {error}") from None
        try:
            return socket, self._read_welcome(await socket.recv())
        except BaseException as error:
            await socket.close()
            if isinstance(error, ConnectionClosed):
                raise ConnectionLostError(f"{self.url}: {error}") from None
            raise

    def _read_welcome(self, message: str | bytes) -> wire.Welcome:
        try:
            welcome = _answer_decoder.decode(message)
        except (msgspec.DecodeError, UnicodeError):
            welcome = f"{message[:60]!r}"
        if isinstance(welcome, wire.Welcome) and welcome.version == wire.VERSION:
            return welcome
        raise ConnectionLostError(f"{self.url}: expected a welcome of version {wire.VERSION}, got {welcome}")


def lost(url: str, error: ConnectionClosed) -> ConnectionLostError:
    """The error of a connection that has gone, with what the server said."""
    close = error.rcvd
    return ConnectionLostError(f"{url}: closed with {close.code} {close.reason}" if close else f"{url}: {error}")


def _why(body: bytes | bytearray | None) -> str:
    """The `error` of a refusal in JSON; of any other body its text."""
    try:
        return msgspec.json.decode(body or b"", type=_Refusal).error
    except (msgspec.DecodeError, UnicodeError):
        return bytes(body or b"").decode(errors="replace")
