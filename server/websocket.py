"""uvicorn's WebSocket protocol with four things added. A connection can be cut although its client does not read.
Where nothing has to wait, a message is written at once. What a client does wrong is one line in the log. A handshake
that is none is refused in JSON.

ASGI has no such messages: its `websocket.close` waits until the client has read what came before, and its
`websocket.send` passes four layers, which for the tokens of many streams is much of the cost. The cut goes to the
application in `scope["extensions"]["penstock.cut"]`, a function of (close code, reason, seconds), and `write` in
`"penstock.write"`, a function of the text. Beside them is `"penstock.left"`, a function that says whether the client
has closed the connection, and not merely lost it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import msgspec
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from .answer import refusal_body

log = logging.getLogger("penstock.server")


class CuttableProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection of uvicorn that can be cut."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn.reject = self._reject  # type: ignore[method-assign]

    def _reject(self, status: Any, text: str) -> Response:
        response = ServerProtocol.reject(self.conn, status, text)
        body = msgspec.json.encode(refusal_body(int(status), " ".join(text.split())))
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body)))):
            del response.headers[name]
            response.headers[name] = value
        response.body = body
        return response

    async def send(self, message: Any) -> None:
        """As uvicorn's; a refusal is a complete handshake, which it would report as an error."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def send_receive_event_to_app(self) -> None:
        """Hand a whole message to the application; text has to be UTF-8 (RFC 6455, 8.1)."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                log.warning("refused a text message that is no UTF-8")
                self.conn.send_close(1007, "text message: expected UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_connect(self, event: Request) -> None:
        """Answer the handshake and start the application, which finds `cut` in its scope."""
        super().handle_connect(event)
        if hasattr(self, "scope"):  # Not where the handshake was refused.
            extensions = cast(Any, self.scope)["extensions"]
            extensions["penstock.cut"], extensions["penstock.write"] = self.cut, self.write
            extensions["penstock.left"] = lambda: self.conn.close_rcvd is not None

    def write(self, text: bytes) -> bool:
        """Send a text message at once; False if the client has to read first, or can hear nothing more."""
        if self.disconnected or self.close_sent or not (self.handshake_complete and self.writable.is_set()):
            return False
        try:
            self.conn.send_text(text)
        except InvalidState:
            return False
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    def cut(self, code: int, reason: str, seconds: float) -> None:
        """Send a close frame now; drop the connection after `seconds`, whether or not the client has read it."""
        if self.disconnected or self.close_sent:
            return
        try:
            self.conn.send_close(code, reason)
        except InvalidState:
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # `close_timer` is cancelled by uvicorn as soon as the client answers the close frame or goes.
        self.close_timer = asyncio.get_running_loop().call_later(seconds, self.transport.abort)
