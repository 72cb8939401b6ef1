"""`penstock encode-serve`: the towers of a model in a process of their own, for engines that have none.

In come the questions of engines over the WebSocket `/v1/encode` (engine/remote.py), out go spans and features. Every
engine that shows a key is let in; they are answered one after the other, by one thread. It keeps nothing of a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as METRICS_TYPE
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .access import host_allowed, key_of, origin_allowed
from .answer import json_answer, refusal
from .config import ServerConfig

if TYPE_CHECKING:
    from ..engine.loading.towers import LoadedTowers

log = logging.getLogger("penstock.server")

PATH = "/v1/encode"


class EncodeService:
    """What the routes share: the towers, the thread that asks them, the figures."""

    def __init__(self, loaded: LoadedTowers, config: ServerConfig) -> None:
        from ..engine.encoding import encode
        from ..engine.remote import QUESTIONS, Hello, RefusedWork, answer, own_version

        self._config = config
        most = config.max_message_bytes
        what = (loaded.model, loaded.dtype, loaded.fingerprint, most, loaded.findings)
        self._hello = encode(Hello(own_version(), *what))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-encode")

        def work(data: bytes) -> bytes:
            try:
                question = QUESTIONS.decode(data)
            except (msgspec.DecodeError, TypeError, ValueError, AttributeError) as error:
                return encode(RefusedWork("message", f"expected pieces or a prompt, got something else: {error}"))
            begun = time.perf_counter()
            try:
                return encode(answer(loaded.towers, question))
            except Exception as error:  # what towers raise is in the answer; this is a fault of ours
                log.exception("a question was not answered")
                return encode(RefusedWork("internal", f"the encoder failed over this: {type(error).__name__}"))
            finally:
                self._seconds.inc(time.perf_counter() - begun)

        self._work = work
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._engines = Gauge("penstock_encode_engines", "Engines that are connected.", registry=registry)
        self._answered = Counter("penstock_encode_answers", "Questions that were answered.", registry=registry)
        self._seconds = Counter("penstock_encode_seconds", "Seconds that the towers worked.", registry=registry)
        self._refused = Counter("penstock_encode_refused", "Handshakes that were refused.", registry=registry)

    async def health(self, request: Request) -> Response:
        """200 as long as it runs."""
        allowed = host_allowed(request.headers, self._config)
        return json_answer(200, {"status": "ok"}) if allowed else refusal(403, _HOST)

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        if not host_allowed(request.headers, self._config):
            return refusal(403, _HOST)
        return Response(generate_latest(self.registry), media_type=METRICS_TYPE)

    async def encode(self, websocket: WebSocket) -> None:
        """One engine, to the end of its connection."""
        refused = self._refusal(websocket)
        if refused is not None:
            self._refused.inc()
            log.warning("refused %d %s", *refused)
            await websocket.receive()
            with contextlib.suppress(WebSocketDisconnect):
                await websocket.send_denial_response(refusal(*refused))
            return
        loop = asyncio.get_running_loop()
        self._engines.inc()
        log.info("an engine has come")
        try:
            await websocket.accept()
            await websocket.send_bytes(self._hello)
            while True:
                data = await websocket.receive_bytes()
                answered = await loop.run_in_executor(self._thread, self._work, data)
                self._answered.inc()
                await websocket.send_bytes(answered)
        except (WebSocketDisconnect, KeyError, RuntimeError):  # it has gone, or has sent text
            pass
        finally:
            self._engines.dec()
            log.info("an engine has gone")

    def stop(self) -> None:
        """Wait for the question that is being answered."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _refusal(self, client: HTTPConnection) -> tuple[int, str] | None:
        if not origin_allowed(client.headers, self._config):
            return 403, "foreign origin: expected an engine, which has none"
        if key_of(client.headers, (), self._config) is None:
            return 401, "expected an API key: Authorization: Bearer <key>"
        return None


_HOST = "foreign host: expected localhost or a loopback address"


def encode_app(loaded: LoadedTowers, config: ServerConfig) -> Starlette:
    """The ASGI app for these towers; its `EncodeService` is `app.state.service`."""
    service = EncodeService(loaded, config)
    app = Starlette(
        routes=[
            Route("/health", service.health),
            Route("/ready", service.health),
            Route("/metrics", service.metrics),
            WebSocketRoute(PATH, service.encode),
        ]
    )
    app.state.service = service
    return app
