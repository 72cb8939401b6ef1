"""uvicorn's WebSocket protocol with one thing added: a connection can be cut although its client does not read.

ASGI has no such message: its `websocket.close` waits until the client has read what came before. The cut goes to the
application in `scope["extensions"]["penstock.cut"]`, a function of (close code, reason, seconds).
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.http11 import Request


class CuttableProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection of uvicorn that can be cut."""

    def handle_connect(self, event: Request) -> None:
        """Answer the handshake and start the application, which finds `cut` in its scope."""
        super().handle_connect(event)
        if hasattr(self, "scope"):  # Not where the handshake was refused.
            self.scope["extensions"]["penstock.cut"] = self.cut  # type: ignore[index]

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
