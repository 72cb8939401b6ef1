"""Each answer has a name, in the header `x-request-id`, under which the log has its lines too.

In: an ASGI app. Out: the same, whose answers are named as the client names its request, or with a new name.
"""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import REQUEST

HEADER = "x-request-id"
_NAME = re.compile(r"[!-~]{1,128}")


class NamedAnswers:
    """Names the answer to each HTTP request and to each WebSocket's handshake. A name of the client's is taken where it
    is up to 128 visible characters of ASCII."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        name = given if _NAME.fullmatch(given) else f"req_{secrets.token_hex(12)}"

        async def named(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        REQUEST.set(name)  # of this request alone: each one runs in a task of its own
        await self._app(scope, receive, named)
