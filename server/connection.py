"""One WebSocket connection: its receive task, its one sender task, and the session that its door speaks to.

In come WebSocket messages, which are read at all times: nothing in the receive task waits for a stream, a reply or the
client. Out go answers and events through one bounded outbox; a client that leaves too much of it unread loses its
connection, and nobody else's. When `run` returns, all streams of the connection are closed and no task of it is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from .commands import Answer, Command
from .config import ServerConfig
from .errors import MessageError, PenstockError, ServerLimitError
from .outbox import HangUp, SendQueue
from .session import Session, refusal
from .session_tasks import SessionTasks

if TYPE_CHECKING:
    from ..actors.engine import Engine

log = logging.getLogger("penstock.server")

# How long a closing connection may take to flush what is queued, and to answer the close frame.
FLUSH_SECONDS = 2.0


class Door(Protocol):
    """One wire over one WebSocket. Messages for the client are `bytes` of JSON, sent as text."""

    @property
    def subprotocol(self) -> str | None:
        """What the handshake answers a client that offers it."""
        ...

    def greet(self) -> Iterable[bytes | Command]:
        """What comes before anything that the client sends."""
        ...

    def hear(self, message: str | bytes) -> Iterable[bytes | Command]:
        """What a message of the client means: commands, and messages that answer it at once. PenstockError where it
        means nothing; a MessageError names its stream and its `ref`."""
        ...

    def tell(self, answer: Answer) -> Iterable[bytes]:
        """The messages that tell the client of an answer of its session."""
        ...


class ServedSocket:
    """One client. `run` is its whole life; `drain` asks it to come to an end."""

    def __init__(self, websocket: WebSocket, engine: Engine, config: ServerConfig, number: int, door: Door) -> None:
        self._websocket = websocket
        self._engine = engine
        self._config = config
        self._number = number
        self._door = door
        self._outbox = SendQueue(config.unread_bytes, config.unread_seconds)
        self._session = Session(config.max_streams, config.waiting_bytes)
        self._heard = 0.0  # When the client last said something (loop time).
        self._draining = asyncio.Event()
        self._farewell = HangUp(1012, "the server is going down")  # What ends it when it drains.

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._session.streams

    def drain(self, code: int, reason: str) -> None:
        """Take nothing new; when the running replies have ended, or after `drain_seconds`, close with this code and
        reason. Replies that rest end at once."""
        self._farewell = HangUp(code, reason)
        self._session.drain()
        self._draining.set()

    async def run(self) -> None:
        """Serve the client until it goes, is hung up on, or the server drains; then close its streams."""
        hang_up: HangUp | None = None
        work: SessionTasks | None = None
        self._heard = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as tasks:
                label = f"connection={self._number}"
                work = SessionTasks(self._session, self._engine, self._tell, tasks, label)
                self._take(self._door.greet(), work)
                tasks.create_task(self._send(), name=f"connection {self._number} sender")
                tasks.create_task(self._watch(work), name=f"connection {self._number} watch")
                await self._receive(work)
                raise HangUp(1005, "client gone")
        except* HangUp as group:
            hang_up = _first(group)
        finally:
            if hang_up is not None and hang_up.code != 1005:
                await self._hang_up(hang_up)
            if work is not None:
                await work.close()

    def _take(self, said: Iterable[bytes | Command], work: SessionTasks) -> None:
        """Pass on what the door has made of a message: commands to the session, the rest to the client."""
        for part in said:
            if isinstance(part, bytes):
                self._outbox.put(part)
            else:
                work.take(part)

    def _tell(self, answer: Answer) -> None:
        for frame in self._door.tell(answer):
            self._outbox.put(frame)

    # ---- the sender ----
    async def _send(self) -> None:
        while True:
            frame = await self._outbox.next()
            try:
                async with asyncio.timeout(self._config.unread_seconds):
                    await self._websocket.send({"type": "websocket.send", "text": frame.decode()})
            except TimeoutError:
                raise self._outbox.too_slow(self._config.unread_seconds) from None
            except (WebSocketDisconnect, RuntimeError):  # Starlette: RuntimeError once the receive task saw the end.
                raise HangUp(1005, "client gone") from None
            self._outbox.done()

    async def _hang_up(self, hang_up: HangUp) -> None:
        log.info("connection %d closed code=%d reason=%r", self._number, hang_up.code, hang_up.reason)
        cut = self._websocket.scope.get("extensions", {}).get("penstock.cut")
        if cut is not None:
            cut(hang_up.code, hang_up.reason, FLUSH_SECONDS)
            return
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._websocket.close(hang_up.code, hang_up.reason)
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            pass  # It is gone, or does not read: the server drops it.

    # ---- the receive task: nothing below waits but for the next message ----
    async def _receive(self, work: SessionTasks) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self._heard = loop.time()
            text, data = message.get("text"), message.get("bytes") or b""
            try:
                if text is not None and len(text) > self._config.max_text_bytes:
                    raise ServerLimitError(
                        f"text message: at most {self._config.max_text_bytes} characters, got {len(text)}"
                    )
                self._take(self._door.hear(data if text is None else text), work)
            except PenstockError as error:
                stream, ref = (error.stream, error.ref) if isinstance(error, MessageError) else (None, None)
                self._tell(refusal(error, stream, ref))

    # ---- the life of the connection ----
    async def _watch(self, work: SessionTasks) -> None:
        """Hang up on an idle client, and when the server drains."""
        loop = asyncio.get_running_loop()
        while not self._draining.is_set():
            heard = loop.time() if self._session.busy else max(self._heard, work.busy_until)
            left = heard + self._config.idle_seconds - loop.time()
            if left <= 0:
                raise HangUp(1008, f"idle: no message for {self._config.idle_seconds:g} s")
            await _wait(self._draining, left)
        work.step()
        deadline = loop.time() + self._config.drain_seconds
        while self._session.busy and loop.time() < deadline:
            work.changed.clear()
            await _wait(work.changed, deadline - loop.time())
        deadline = loop.time() + FLUSH_SECONDS
        self._session.finish()
        work.step()
        while self._session.streams and loop.time() < deadline:
            work.changed.clear()
            await _wait(work.changed, deadline - loop.time())
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._outbox.wait_sent()
        except TimeoutError:
            pass  # The client does not read; what is left is lost with it.
        raise self._farewell


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _first(group: BaseExceptionGroup[HangUp]) -> HangUp:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
