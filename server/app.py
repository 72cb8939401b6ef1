"""The server: one port for HTTP (`/health`, `/ready`, the page at `/`) and the WebSocket `/v1/stream`, until SIGTERM.

In come an engine and a `ServerConfig`; out goes a Starlette app (`create_app`), or a running server (`serve`). Knows
neither the wire's messages nor torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .access import key_allowed, origin_allowed
from .config import ServerConfig
from .connection import FLUSH_SECONDS, Connection
from .errors import ConfigError
from .static import page_routes
from .websocket import CuttableProtocol
from .wire import SUBPROTOCOL

if TYPE_CHECKING:
    from ..actors.engine import Engine

log = logging.getLogger("penstock.server")


class Service:
    """What the routes share: the engine, the open connections and whether the server is going down."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self.engine = engine
        self.config = config
        self.draining = False
        self._connections: dict[int, Connection] = {}
        self._count = 0
        self._gone = asyncio.Event()  # A connection has ended.

    async def health(self, request: Request) -> Response:
        """200 as long as the event loop lives, with numbers."""
        status = "failed" if self.engine.failed is not None else "draining" if self.draining else "ok"
        streams = sum(connection.streams for connection in self._connections.values())
        body = {
            "status": status,
            "connections": len(self._connections),
            "streams": streams,
            "engine": self.engine.statistics(),
        }
        return _json(200, body)

    async def ready(self, request: Request) -> Response:
        """200 where a new stream can be opened, else 503 with the reason."""
        if self.engine.failed is not None:
            reason = "engine failed"
        elif self.draining:
            reason = "going down"
        elif not self.engine.ready:
            reason = "warming up"
        else:
            return _json(200, {"ready": True})
        return _json(503, {"ready": False, "reason": reason})

    async def access(self, request: Request) -> Response:
        """204 where a WebSocket with these headers is let in, else its refusal, which a browser hides from pages."""
        refusal = self._refusal(request, ())
        return Response(status_code=204) if refusal is None else PlainTextResponse(refusal[1], refusal[0])

    async def stream(self, websocket: WebSocket) -> None:
        """The WebSocket route: refuse the handshake, or serve one connection to its end."""
        refusal = self._refusal(websocket, websocket.scope["subprotocols"])
        if refusal is not None:
            status, reason = refusal
            log.warning("refused %d %s", status, reason)
            await websocket.receive()
            await websocket.send_denial_response(PlainTextResponse(reason, status))
            return
        self._count += 1
        number = self._count
        connection = Connection(websocket, self.engine, self.config, number)
        self._connections[number] = connection
        try:
            await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None)
            await connection.run()
        except WebSocketDisconnect:
            pass  # Gone during the handshake.
        finally:
            del self._connections[number]
            self._gone.set()

    def _refusal(self, client: HTTPConnection, subprotocols: Sequence[str]) -> tuple[int, str] | None:
        if not origin_allowed(client.headers, self.config):
            return 403, "foreign origin: expected the server's own or one of --allow-origin"
        if not key_allowed(client.headers, subprotocols, self.config):
            return 401, "expected an API key: Authorization: Bearer <key>"
        if self.draining:
            return 503, "the server is going down"
        if len(self._connections) >= self.config.max_connections:
            return 503, f"connections: at most {self.config.max_connections}, got one more"
        return None

    async def drain(self) -> None:
        """Take nothing new, let running replies finish for `drain_seconds`, close all streams and connections."""
        self.draining = True
        log.info("draining: %d connections", len(self._connections))
        for connection in list(self._connections.values()):
            connection.drain()
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
            Route("/v1/access", service.access),
            WebSocketRoute("/v1/stream", service.stream),
            *page_routes(),
        ]
    )
    app.state.service = service
    return app


def bind(config: ServerConfig) -> socket.socket:
    """The listening socket; port 0 takes a free one. ConfigError where the address cannot be had."""
    config.check()
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listener = socket.create_server((config.host, config.port), family=family, backlog=512)
    except OSError as error:
        do = {errno.EADDRINUSE: "--port", errno.EACCES: "--port", errno.EADDRNOTAVAIL: "--host"}.get(error.errno or 0)
        why = f"{os.strerror(error.errno)}; take another with {do}" if do and error.errno else error.strerror or error
        raise ConfigError(f"cannot listen on {config.host}:{config.port}: {why}") from None
    # Connections inherit it. asyncio would not set it for a listener that it has not made, and a token would wait for
    # the client to acknowledge the one before it, up to 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop for a server: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def serve(
    engine: Engine,
    config: ServerConfig,
    *,
    listener: socket.socket | None = None,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends it at once.

    `listener` is a socket of `bind` (else one is bound here); `on_listening` gets the URL. The engine stays open.
    Cancelled, it ends without draining; streams are closed all the same. ConfigError before anything starts.
    """
    app = create_app(engine, config)
    listener = listener or bind(config)
    server = _Server(
        uvicorn.Config(
            app,
            ws=CuttableProtocol,
            ws_max_size=config.max_message_bytes,
            ws_per_message_deflate=False,
            ssl_certfile=config.tls_cert,
            ssl_keyfile=config.tls_key,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=int(FLUSH_SECONDS) + 3,
        )
    )
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            server.should_exit = server.force_exit = True
        stopping.set()

    async with asyncio.TaskGroup() as tasks:
        with _signals(stop):
            serving = tasks.create_task(server.serve(sockets=[listener]), name="http server")
            drainer = tasks.create_task(_drain_when(stopping, app.state.service, server), name="drain")
            if on_listening is not None:
                on_listening(_url(listener, config))
            try:
                await asyncio.wait([serving])
            except asyncio.CancelledError:
                server.should_exit = True
                await asyncio.wait([serving])  # It closes the sockets and waits for their connections.
                raise
            finally:
                drainer.cancel()


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: it would close sockets at once where we drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def _drain_when(stopping: asyncio.Event, service: Service, server: uvicorn.Server) -> None:
    await stopping.wait()
    await service.drain()
    server.should_exit = True


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Generator[None, None, None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _url(listener: socket.socket, config: ServerConfig) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if config.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _json(status: int, body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
