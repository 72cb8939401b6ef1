"""uvicorn's HTTP protocol with bounds: how many sockets are open, and how long one may take over a request.

A request has come in full within `REQUEST_SECONDS`, counted from the opening of its socket or from the end of the
answer before it, and a second more for each `BODY_BYTES_A_SECOND` bytes; a socket that takes longer is closed. So is
one that leaves an answer unread for `unread_seconds`, and one that sends more than `WAITING_BYTES` behind a request
that is not answered yet. Of too many sockets that one goes which has waited longest without a request. A WebSocket
leaves these bounds behind with its handshake, and goes on being counted.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from .answer import refusal_body

REQUEST_SECONDS = 10.0
# The slowest that a large request may come.
BODY_BYTES_A_SECOND = 1 << 17
# What may come of further requests before the answer to one is complete.
WAITING_BYTES = 1 << 16
# Sockets for the page and for health checks, beside those of `max_connections`.
SPARE_SOCKETS = 16


class Sockets:
    """The open sockets of one server: at most `most`, those that are WebSockets by now included."""

    def __init__(self, most: int, unread_seconds: float) -> None:
        self.most = most
        self.unread_seconds = unread_seconds
        self.plain: dict[BoundedProtocol, None] = {}  # Not WebSockets; the longest without a request first.

    def protocol(self, **arguments: Any) -> BoundedProtocol:
        """A new socket's protocol, as uvicorn asks for it."""
        return BoundedProtocol(self, **arguments)


class BoundedProtocol(H11Protocol):
    """One socket until it is a WebSocket."""

    def __init__(self, sockets: Sockets, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._sockets = sockets
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._received = 0  # bytes since it waits for a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the socket; where there are too many, refuse the one that has waited longest."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self._sockets.most:
            longest = next((socket for socket in self._sockets.plain if not socket.answering), self)
            longest.refuse(503, f"open sockets: at most {self._sockets.most}, got one more")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the socket."""
        self._leave()
        self._read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come; the deadline is over once it is a whole request."""
        self._received += len(data)
        super().data_received(data)

    def handle_events(self) -> None:
        """The same for what came while the request before was answered."""
        super().handle_events()
        if self.answering and not self.cycle.more_body:
            self._leave()
            self._go_on_reading()

    def shutdown(self) -> None:
        """The server ends: what is not answered by now is cut."""
        if self.answering:
            self.transport.abort()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """The client leaves its answer unread."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._sockets.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        self._read()
        super().resume_writing()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the socket to the WebSocket's protocol."""
        self._leave()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP: answered in JSON."""
        self.refuse(400, "expected an HTTP request, got something else")

    @property
    def answering(self) -> bool:
        """Whether a request has come whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def refuse(self, status: int, why: str) -> None:
        """Say why, and close. In the middle of an answer the socket is just closed."""
        self._leave()
        self.connections.discard(self)
        if self.answering and self.cycle.response_started:
            self.transport.abort()
            return
        body = msgspec.json.encode(refusal_body(status, why))
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _go_on_reading(self) -> None:
        """uvicorn reads no more where a second request comes before the answer to the first. Then nobody would notice
        that the client has gone."""
        waiting = len(self.conn.trailing_data[0])
        if waiting > WAITING_BYTES:
            self.refuse(400, f"expected at most {WAITING_BYTES} bytes behind a request without its answer, got more")
        elif self.flow.read_paused:
            self.flow.resume_reading()

    def _wait(self) -> None:
        self._leave()
        if self.transport.is_closing():
            return
        self._sockets.plain[self] = None
        self._received = 0
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._late, self.loop.time())

    def _late(self, since: float) -> None:
        """Refuse the client, unless what it has sent gives it more time."""
        more = self._received // BODY_BYTES_A_SECOND
        seconds = REQUEST_SECONDS + more
        left = since + seconds - self.loop.time()
        if more and left > 0:
            self._deadline = self.loop.call_later(left, self._late, since)
        else:
            self.refuse(408, f"expected a request within {seconds:g} s, got none or a part of one")

    def _leave(self) -> None:
        self._sockets.plain.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
