"""What each path of the server answers: health, figures, access, the WebSocket `/v1/stream`, the page; errors as JSON.

In come an engine and a `ServerConfig`; out goes a Starlette app (`create_app`). Knows neither the wire's messages nor
how the server is run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as METRICS_TYPE
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from .access import host_allowed, key_of, origin_allowed
from .account import Account
from .answer import json_answer, refusal
from .config import ServerConfig
from .connection import Door, ServedSocket
from .doors.realtime.door import RealtimeDoor
from .doors.stream import StreamDoor
from .engine_metrics import EngineCollector
from .metrics import Meter
from .static import page_routes

if TYPE_CHECKING:
    from ..actors.engine import Engine

log = logging.getLogger("penstock.server")

# The WebSockets of the server, each with the door that serves it: made of what the engine serves, how the server is run
# and the query of the handshake.
DOORS: dict[str, Callable[[Any, ServerConfig, Mapping[str, str]], Door]] = {
    "/v1/stream": StreamDoor,
    "/v1/realtime": RealtimeDoor,
}
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_FAILED = "the engine has failed; the server's log says why"


class Service:
    """What the routes share: the engine, the open connections and whether the server is going down."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self.engine = engine
        self.config = config
        self.draining = False
        self._connections: dict[int, ServedSocket] = {}
        self._count = 0
        self._gone = asyncio.Event()  # A connection has ended.
        self._kept: dict[str, ServedSocket] = {}  # Those that a client may go on with, by token.
        self._accounts: dict[str, Account] = {}  # by the name of the key
        self.meter = Meter()
        self.meter.add(EngineCollector(lambda: engine.statistics(), lambda: engine.failed is not None))

    async def health(self, request: Request) -> Response:
        """Numbers: with 200 as long as the engine works, with 503 where it has failed."""
        failed = self.engine.failed is not None
        streams = sum(connection.streams for connection in self._connections.values())
        body = {
            "status": "failed" if failed else "draining" if self.draining else "ok",
            "connections": len(self._connections),
            "streams": streams,
            "engine": self.engine.statistics(),
        }
        return json_answer(503 if failed else 200, body)

    async def ready(self, request: Request) -> Response:
        """200 where a new stream can be opened, else 503 with the reason."""
        if self.engine.failed is not None:
            reason = "engine failed"
        elif self.draining:
            reason = "going down"
        elif not self.engine.ready:
            reason = "warming up"
        else:
            return json_answer(200, {"ready": True})
        return json_answer(503, {"ready": False, "reason": reason})

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        return Response(self.meter.text(), media_type=METRICS_TYPE)

    async def access(self, request: Request) -> Response:
        """204 where a WebSocket with these headers is let in, else its refusal, which a browser hides from pages."""
        refused = self._refusal(request, ())
        return Response(status_code=204) if refused is None else refusal(*refused)

    async def not_upgraded(self, request: Request) -> Response:
        """426: a request to the WebSocket's path that asks for no WebSocket."""
        why = f"expected a WebSocket handshake on {request.url.path}, got a plain {request.method}"
        return refusal(426, why, {"upgrade": "websocket", "connection": "upgrade"})

    async def stream(self, websocket: WebSocket) -> None:
        """The WebSocket route: refuse the handshake, or serve one connection to its end."""
        refused = self._refusal(websocket, websocket.scope["subprotocols"])
        if refused is not None:
            self.meter.handshakes_refused.labels(str(refused[0])).inc()
            await _deny(websocket, *refused)
            return
        self._count += 1
        number = self._count
        path = websocket.scope["path"]
        door = DOORS[path](self.engine.info, self.config, websocket.query_params)
        connection = ServedSocket(
            websocket, self.engine, self.config, number, door, self._kept, self._account(websocket)
        )
        self._connections[number] = connection
        self.meter.connected.labels(path).inc()
        self.meter.connections.labels(path).inc()
        older: ServedSocket | None = None
        try:
            offered = door.subprotocol in websocket.scope["subprotocols"]
            await websocket.accept(door.subprotocol if offered else None)
            older = await connection.run()
        except WebSocketDisconnect:
            pass  # Gone during the handshake.
        finally:
            del self._connections[number]
            self.meter.connections.labels(path).dec()
            self._gone.set()
        if older is not None:
            await older.serve_on(websocket)

    def _account(self, client: HTTPConnection) -> Account:
        """The account of a client that has been let in."""
        key = key_of(client.headers, client.scope.get("subprotocols", ()), self.config)
        assert key is not None
        if key.name not in self._accounts:
            self._accounts[key.name] = Account(key, self.meter)
        return self._accounts[key.name]

    def _refusal(self, client: HTTPConnection, subprotocols: Sequence[str]) -> tuple[int, str] | None:
        if not origin_allowed(client.headers, self.config):
            return 403, "foreign origin: expected the server's own or one of --allow-origin"
        if key_of(client.headers, subprotocols, self.config) is None:
            return 401, "expected an API key: Authorization: Bearer <key>"
        if self.engine.failed is not None:
            return 503, _FAILED
        if self.draining:
            return 503, "the server is going down"
        if sum(not connection.waits for connection in self._connections.values()) >= self.config.max_connections:
            return 503, f"connections: at most {self.config.max_connections}, got one more"
        return None

    async def drain(self, code: int = 1012, reason: str = "the server is going down") -> None:
        """Take nothing new, end replies that rest, let those that speak finish for `drain_seconds`, close all streams
        and connections: with this close code and reason."""
        self.draining = True
        log.info("draining: %d connections", len(self._connections))
        for connection in list(self._connections.values()):
            connection.drain(code, reason)
        while self._connections:
            self._gone.clear()
            await self._gone.wait()


def create_app(engine: Engine, config: ServerConfig) -> Starlette:
    """The ASGI app for `engine`; its `Service` is `app.state.service`. ConfigError where `config` is refused."""
    config.check()
    service = Service(engine, config)
    app = Starlette(
        routes=[
            Route("/health", service.health),
            Route("/ready", service.ready),
            Route("/metrics", service.metrics),
            Route("/v1/access", service.access),
            *(Route(path, service.not_upgraded, methods=_METHODS) for path in DOORS),
            *(WebSocketRoute(path, service.stream) for path in DOORS),
            *page_routes(),
        ],
        middleware=[Middleware(_OwnHost, config)],
        exception_handlers={HTTPException: _http_error, Exception: _fault},
    )
    app.state.service = service
    app.router.default = _elsewhere
    return app


async def _elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    """404: nothing is on this path, or no WebSocket is."""
    if scope["type"] != "websocket":
        raise HTTPException(404)
    why = f"expected a WebSocket on {', '.join(DOORS)}, got one on {_shown(scope['path'])}"
    await _deny(WebSocket(scope, receive, send), 404, why)


def _shown(path: str) -> str:
    """A path that a client sent, as one short word."""
    return ascii(path[:80])[1:-1]


class _OwnHost:
    """Lets through what is for a host of this server; a page that was loaded from a foreign name reads nothing."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or host_allowed(Headers(scope=scope), self._config):
            await self._app(scope, receive, send)
            return
        why = "foreign host: expected localhost, a loopback address or the host of an --allow-origin"
        await refusal(403, why)(scope, receive, send)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = _shown(request.url.path)
    match error.status_code:
        case 404:
            why = f"expected /, /health, /ready, /metrics or the WebSocket {', '.join(DOORS)}, got {path}"
        case 405:
            allowed = (error.headers or {}).get("Allow", "GET")
            why = f"{path}: expected {allowed}, got {request.method}"
        case _:
            why = error.detail
    return refusal(error.status_code, why, error.headers)


async def _fault(request: Request, error: Exception) -> Response:
    return refusal(500, "internal error; the server's log says more")


async def _deny(websocket: WebSocket, status: int, why: str) -> None:
    """Answer a handshake as HTTP; a client that has gone meanwhile is no error."""
    log.warning("refused %d %s", status, why)
    await websocket.receive()
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.send_denial_response(refusal(status, why))
