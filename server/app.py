"""A server that runs: one port for HTTP and the WebSocket `/v1/stream`, until SIGTERM or until the engine fails.

In come an engine and a `ServerConfig`; `bind` gives the socket, `serve` answers on it what `routes` says. Knows neither
the wire's messages nor torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from starlette.applications import Starlette

from . import http
from .config import ServerConfig
from .connection import FLUSH_SECONDS
from .errors import ConfigError, EngineFailedError
from .routes import Service, create_app
from .websocket import CuttableProtocol

if TYPE_CHECKING:
    from ..actors.engine import Engine

log = logging.getLogger("penstock.server")


def bind(config: ServerConfig) -> socket.socket:
    """The listening socket; port 0 takes a free one. ConfigError where the address cannot be had."""
    config.check()
    _check_tls(config)
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


def _check_tls(config: ServerConfig) -> None:
    """ConfigError where the certificate and its key cannot be used, or the key wants a passphrase."""
    if config.tls_cert is None or config.tls_key is None:
        return
    for name, path in (("--tls-cert", config.tls_cert), ("--tls-key", config.tls_key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ConfigError(f"{name}: expected a PEM file, got {path}: {error.strerror}") from None
    locked = False

    def passphrase() -> str:
        nonlocal locked
        locked = True
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_cert, config.tls_key, passphrase)
    except (OSError, ValueError) as error:
        if locked:
            raise ConfigError(f"--tls-key: expected a key without a passphrase, got {config.tls_key}") from None
        why = getattr(error, "reason", None) or error
        raise ConfigError(
            f"TLS: expected a certificate and its own key, got {config.tls_cert} and {config.tls_key}: {why}"
        ) from None


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop for a server: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def settle() -> None:
    """What is there now stays for good: the collector of garbage does not walk over it any more.

    A walk over a loaded model and its libraries holds up the event loop for a quarter of a second. To be called once
    the model is loaded, by a process that does nothing but serve it.
    """
    gc.collect()
    gc.freeze()


async def serve(
    engine: Engine,
    config: ServerConfig,
    *,
    listener: socket.socket | None = None,
    on_listening: Callable[[str], None] | None = None,
    on_draining: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends it at once.

    `listener` is a socket of `bind` (else one is bound here); `on_listening` gets the URL, `on_draining` is called at
    the first signal. The engine stays open. Cancelled, it ends without draining; streams are closed all the same.
    ConfigError before anything starts. EngineFailedError where the engine has failed, once the clients have been told;
    with `config.stay` it goes on and refuses.
    """
    app = create_app(engine, config)
    listener = listener or bind(config)
    server = _Server(_uvicorn_config(app, config))
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            server.stop_now()
        elif on_draining is not None:
            on_draining()
        stopping.set()

    async with asyncio.TaskGroup() as tasks:
        with _signals(stop):
            serving = tasks.create_task(server.serve(sockets=[listener]), name="http server")
            others = [tasks.create_task(_drain_when(stopping, app.state.service, server), name="drain")]
            if not config.stay:
                others.append(tasks.create_task(_stop_when_failed(engine, stopping), name="engine watch"))
            if on_listening is not None:
                on_listening(_url(listener, config))
            try:
                await asyncio.wait([serving])
            except asyncio.CancelledError:
                server.should_exit = True
                app.state.service.give_up_lost()
                await asyncio.wait([serving])  # It closes the sockets and waits for their connections.
                raise
            finally:
                for task in others:
                    task.cancel()
    if engine.failed is not None and not config.stay:
        raise EngineFailedError("the engine has failed") from engine.failed


async def serve_app(
    app: Starlette, config: ServerConfig, listener: socket.socket, on_listening: Callable[[str], None]
) -> None:
    """Serve an app that has nothing to drain until SIGTERM or SIGINT, or until this is cancelled."""
    server = _Server(_uvicorn_config(app, config))
    with _signals(server.stop_now):
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
        on_listening(_url(listener, config))
        try:
            await asyncio.wait([serving])
        except asyncio.CancelledError:
            server.stop_now()
            await asyncio.wait([serving])
            raise


def _uvicorn_config(app: Starlette, config: ServerConfig) -> uvicorn.Config:
    sockets = http.Sockets(config.max_connections + http.SPARE_SOCKETS, config.unread_seconds)
    return uvicorn.Config(
        app,
        http=cast(Any, sockets.protocol),
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


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: it would close sockets at once where we drain. It has no option for
    the time that a TLS handshake may take; here that is the time of a request.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on these sockets."""
        tls, loop = self.config.ssl, asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            make = cast(Any, self.config.http_protocol_class)
            return make(config=self.config, server_state=self.server_state, app_state={})

        seconds = None if tls is None else http.REQUEST_SECONDS
        self.servers = [
            await loop.create_server(
                protocol, sock=listener, ssl=tls, ssl_handshake_timeout=seconds, backlog=self.config.backlog
            )
            for listener in sockets or ()
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def stop_now(self) -> None:
        """Drop all sockets, whatever is on its way through them."""
        self.should_exit = self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()


async def _drain_when(stopping: asyncio.Event, service: Service, server: uvicorn.Server) -> None:
    await stopping.wait()
    if service.engine.failed is not None:
        await service.drain(1011, "the engine has failed")
    else:
        await service.drain()
    server.should_exit = True


async def _stop_when_failed(engine: Engine, stopping: asyncio.Event) -> None:
    await engine.until_failed()
    stopping.set()


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
