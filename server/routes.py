"""What each path of the server answers: health, figures, access, the WebSocket `/v1/stream`, the HTTP doors, the page;
errors as JSON.

In come an engine and a `ServerConfig`; out goes a Starlette app (`create_app`). Knows neither the wire's messages nor
how the server is run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
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

from .access import cross_origin, host_allowed, key_of, origin_allowed, preflight
from .account import Account
from .answer import json_answer, openai_refusal, refusal
from .config import ServerConfig
from .connection import Door, ServedSocket
from .doors.gemini.door import GeminiDoor
from .doors.openai_chat import ChatDoor
from .doors.openai_completions import CompletionsDoor
from .doors.openai_responses import ResponsesDoor
from .doors.openai_transcription import TranscriptionDoor, TranslationDoor
from .doors.realtime.door import realtime_door
from .doors.stream import StreamDoor
from .engine_metrics import EngineCollector
from .fetching import Fetcher
from .http_request import MakeDoor, ServedRequest
from .kept_media import KeptMedia
from .logs import REQUEST
from .metrics import Meter
from .models import LOAD, UNLOAD, Models
from .openai_words import RequestMark
from .openapi import document
from .request_id import HEADER, NamedAnswers
from .static import page_routes
from .version import version

if TYPE_CHECKING:
    from ..actors.engine import Engine

log = logging.getLogger("penstock.server")

GEMINI = [
    f"/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent"
    for version in ("v1", "v1beta", "v1alpha")
]
# The WebSockets of the server, each with the door that serves it: made of what the engine serves, how the server is run
# and the query of the handshake.
DOORS: dict[str, Callable[[Any, ServerConfig, Mapping[str, str]], Door]] = {
    "/v1/stream": StreamDoor,
    "/v1/realtime": realtime_door,
    **dict.fromkeys(GEMINI, GeminiDoor),
}
_SOCKETS = ", ".join(path for path in DOORS if path not in GEMINI)
# The paths that take a POST, each with the door that serves it.
HTTP_DOORS: dict[str, MakeDoor] = {
    "/v1/chat/completions": ChatDoor,
    "/v1/completions": CompletionsDoor,
    "/v1/responses": ResponsesDoor,
    "/v1/audio/transcriptions": TranscriptionDoor,
    "/v1/audio/translations": TranslationDoor,
}
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_FOREIGN = "foreign origin: expected the server's own or one of --allow-origin"
_FAILED = "the engine has failed; the server's log says why"


class Service:
    """What the routes share: the engine, the open connections and whether the server is going down."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self.engine = engine
        self.config = config
        self.draining = False
        self._connections: dict[int, ServedSocket | ServedRequest] = {}
        self._models = Models(engine, config)
        self._fetcher = _fetcher(config)
        self._media = KeptMedia()
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
        self.meter.tasks.set(len(asyncio.all_tasks()))
        return Response(self.meter.text(), media_type=METRICS_TYPE)

    async def access(self, request: Request) -> Response:
        """204 where a WebSocket with these headers is let in, else its refusal, which a browser hides from pages."""
        refused, full = self._refusal(request, ()), self._full(request)
        if refused is None and full is not None:
            refused = 503, full
        return Response(status_code=204) if refused is None else refusal(*refused)

    async def not_upgraded(self, request: Request) -> Response:
        """426: a request to the WebSocket's path that asks for no WebSocket."""
        why = f"expected a WebSocket handshake on {request.url.path}, got a plain {request.method}"
        return refusal(426, why, {"upgrade": "websocket", "connection": "upgrade"})

    async def stream(self, websocket: WebSocket) -> None:
        """The WebSocket route: refuse the handshake, or serve one connection to its end."""
        refused = self._refusal(websocket, websocket.scope["subprotocols"])
        full = self._full(websocket)
        if refused is None and full is not None:
            refused = 503, full
        if refused is not None:
            self.meter.handshakes_refused.labels(str(refused[0])).inc()
            await _deny(websocket, *refused)
            return
        self._count += 1
        number = self._count
        path = websocket.scope["path"]
        door, account = DOORS[path](self.engine.info, self.config, websocket.query_params), self._account(websocket)
        room = self._has_room if not self._has_room() else None
        connection = ServedSocket(websocket, self.engine, self.config, number, door, self._kept, account, room)
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
        key = key_of(client.headers, client.scope.get("subprotocols", ()), self.config, _key_in_url(client))
        assert key is not None
        if key.name not in self._accounts:
            self._accounts[key.name] = Account(key, self.meter)
        return self._accounts[key.name]

    def _refusal(self, client: HTTPConnection, subprotocols: Sequence[str]) -> tuple[int, str] | None:
        if not origin_allowed(client.headers, self.config):
            return 403, _FOREIGN
        if key_of(client.headers, subprotocols, self.config, _key_in_url(client)) is None:
            return 401, "expected an API key: Authorization: Bearer <key>"
        if self.engine.failed is not None:
            return 503, _FAILED
        if self.draining:
            return 503, "the server is going down"
        return None

    def _full(self, client: HTTPConnection) -> str | None:
        """Why there is no room for this client."""
        # A client that comes back may come before the loss of its WebSocket, which has a place, is noticed.
        unnoticed = sum(not connection.waits for connection in self._kept.values())
        says_so = "resume" in client.query_params or client.scope["path"] in GEMINI  # there its first message does
        back = says_so and self._guests() < unnoticed
        if back or self._has_room():
            return None
        return f"connections: at most {self.config.max_connections}, got one more"

    def _has_room(self) -> bool:
        taken = sum(not (connection.waits or connection.guest) for connection in self._connections.values())
        return taken < self.config.max_connections

    def _guests(self) -> int:
        return sum(connection.guest for connection in self._connections.values())

    # ---- HTTP doors ----
    async def models(self, request: Request) -> Response:
        """The list of the model and its adapters, or what is said of one; or an adapter is loaded or unloaded."""
        headers = cross_origin(request.headers, self.config)
        refused = self._refusal(request, ())
        if refused is not None:
            return openai_refusal(*refused, headers)
        if request.method == "POST":
            return await self._models.change(request, self._account(request).key, headers)
        return self._models.told(request.path_params.get("model"), headers)

    async def describe(self, request: Request) -> Response:
        """The OpenAPI document of the HTTP doors."""
        return json_answer(200, document(version()), cross_origin(request.headers, self.config))

    async def preflight(self, request: Request) -> Response:
        """What a browser asks before a page of another origin may ask."""
        if not origin_allowed(request.headers, self.config):
            return openai_refusal(403, _FOREIGN, {})
        return Response(status_code=204, headers=preflight(request.headers, self.config))

    async def ask(self, request: Request) -> ASGIApp:
        """A request for replies, which its door answers."""
        headers = cross_origin(request.headers, self.config)
        refused = self._refusal(request, ())
        if refused is not None:
            return openai_refusal(*refused, headers)
        full = self._full(request)
        if full is not None:
            return openai_refusal(429, full, {**headers, "retry-after": "1"})

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            self._count += 1
            number = self._count
            path, account = scope["path"], self._account(request)
            served = ServedRequest(request, self.engine, self.config, number, account, self._fetcher, self._media)
            self._connections[number] = served
            self.meter.connected.labels(path).inc()
            self.meter.connections.labels(path).inc()
            mark = RequestMark(secrets.token_hex(12), int(time.time()))
            try:
                await served.run(HTTP_DOORS[path], mark, headers, send)
            finally:
                del self._connections[number]
                self.meter.connections.labels(path).dec()
                self._gone.set()

        return answer

    def give_up_lost(self) -> None:
        """End the connections that wait for their clients, which can come back no more."""
        for connection in list(self._connections.values()):
            if connection.waits:
                connection.drain(1012, "the server is going down")

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
            *_http_doors(service),
            *page_routes(),
        ],
        middleware=[Middleware(NamedAnswers), Middleware(_OwnHost, config)],
        exception_handlers={HTTPException: _http_error, Exception: _fault},
    )
    app.state.service = service
    app.router.default = _elsewhere
    return app


def _key_in_url(client: HTTPConnection) -> str | None:
    """The key that Google's clients in JavaScript show."""
    return client.query_params.get("key") if client.scope["path"] in GEMINI else None


def _http_doors(service: Service) -> list[Route]:
    """The routes of OpenAI's interface."""
    asks = [Route(path, service.ask, methods=["POST"]) for path in HTTP_DOORS]
    reads = [Route(path, service.models) for path in ("/v1/models", "/v1/models/{model:path}")]
    reads.append(Route("/openapi.json", service.describe))
    asks += [Route(path, service.models, methods=["POST"]) for path in (LOAD, UNLOAD)]
    before = [Route(route.path, service.preflight, methods=["OPTIONS"]) for route in (*asks, *reads)]
    return [*asks, *reads, *before]


def _fetcher(config: ServerConfig) -> Fetcher | None:
    """What fetches media by its URL, where that is allowed."""
    if not (config.fetch_urls or config.allow_urls):
        return None
    hosts = frozenset(host.lower().rstrip(".") for host in config.allow_urls) or None
    return Fetcher(hosts, config.max_message_bytes)


async def _elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    """404: nothing is on this path, or no WebSocket is."""
    if scope["type"] != "websocket":
        raise HTTPException(404)
    why = f"expected a WebSocket on {_SOCKETS}, got one on {_shown(scope['path'])}"
    await _deny(WebSocket(scope, receive, send), 404, why)


def _shown(path: str) -> str:
    """A path that a client sent, as one short word."""
    return ascii(path[:80])[1:-1]


class _OwnHost:
    """Lets through what is for a host of this server; a page that was loaded from a foreign name reads nothing. A path
    that begins with several slashes is taken for the same with one."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path.startswith("//"):  # as Google's clients in JavaScript write it
            scope = {**scope, "path": "/" + path.lstrip("/"), "raw_path": None}
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
            paths = ", ".join(("/", "/health", "/ready", "/metrics", *HTTP_DOORS))
            why = f"expected {paths} or the WebSocket {_SOCKETS}, got {path}"
        case 405:
            allowed = (error.headers or {}).get("Allow", "GET")
            why = f"{path}: expected {allowed}, got {request.method}"
        case _:
            why = error.detail
    if _is_openai(request.url.path):
        return openai_refusal(error.status_code, why, error.headers or {})
    return refusal(error.status_code, why, error.headers)


async def _fault(request: Request, error: Exception) -> Response:
    why, named = "internal error; the server's log says more", {HEADER: REQUEST.get()}
    return openai_refusal(500, why, named) if _is_openai(request.url.path) else refusal(500, why, named)


def _is_openai(path: str) -> bool:
    """Whether clients of OpenAI's interface ask on this path."""
    return path.startswith("/v1/") and path not in ("/v1/access", *DOORS)


async def _deny(websocket: WebSocket, status: int, why: str) -> None:
    """Answer a handshake as HTTP; a client that has gone meanwhile is no error."""
    log.warning("refused %d %s", status, why)
    await websocket.receive()
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.send_denial_response(refusal(status, why))
