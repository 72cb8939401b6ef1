"""One WebSocket connection: its receive task, its one sender task, and the session that its door speaks to.

In come WebSocket messages, which are read at all times: nothing in the receive task waits for a stream, a reply or the
client. Out go answers and events through one bounded outbox; a client that leaves too much of it unread loses its
connection, and nobody else's. When `run` returns, all streams of the connection are closed and no task of it is left.

A client may ask that its connection is kept (`KeepConnection`). If the WebSocket is then lost, without a close frame or
where its door wants it also with one, streams and tasks go on for `resume_seconds`, and wait for another WebSocket that
goes on with it (`ResumeConnection`). The server counts the messages of the client and the client those of the server,
or its door does, so each sends once more what the other has not.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from .account import Account
from .commands import Answer, Command, ConnectionKept, ConnectionResumed, KeepConnection, Moving, ResumeConnection
from .config import ServerConfig
from .errors import HangUp, MessageError, PenstockError, ResumeError, ServerLimitError
from .outbox import SendQueue
from .session import Session, refusal
from .session_tasks import SessionTasks

if TYPE_CHECKING:
    from ..actors.engine import Engine

log = logging.getLogger("penstock.server")

# How long a closing connection may take to flush what is queued, and to answer the close frame.
FLUSH_SECONDS = 2.0
# What is reported in place of a close code where neither side has sent one (RFC 6455, 7.4.1).
_NO_CLOSE = (1005, 1006)
_GOING_DOWN = 1012


class Door(Protocol):
    """One wire over one WebSocket. Messages for the client are `bytes` of JSON, sent as text."""

    @property
    def subprotocol(self) -> str | None:
        """What the handshake answers a client that offers it."""
        ...

    def greet(self) -> Iterable[bytes | Command | Moving]:
        """What comes before anything that the client sends."""
        ...

    def hear(self, message: str | bytes) -> Iterable[bytes | Command | Moving]:
        """What a message of the client means: commands, and messages that answer it at once. PenstockError where it
        means nothing; a MessageError names its stream and its `ref`."""
        ...

    def tell(self, answer: Answer) -> Iterable[bytes | Command]:
        """The messages that tell the client of an answer of its session, and the commands that follow from it."""
        ...


class Moved(Exception):
    """The WebSocket belongs to an older connection from now on."""

    def __init__(self, older: ServedSocket) -> None:
        super().__init__("the client goes on with an older connection")
        self.older = older


class ServedSocket:
    """One client. `run` is its whole life; `drain` asks it to come to an end. `kept`: the server's connections that may
    be gone on with, by token. `room`: given where it was let into a full server to go on with one of these; whether
    there is a place for it by now, if it does something else."""

    def __init__(
        self,
        websocket: WebSocket,
        engine: Engine,
        config: ServerConfig,
        number: int,
        door: Door,
        kept: dict[str, ServedSocket],
        account: Account,
        room: Callable[[], bool] | None = None,
    ) -> None:
        self._websocket = websocket
        self._kept = kept
        self._account = account
        self._room = room
        self._token: str | None = None  # by which it may be gone on with
        self._keeps_closed = False  # also where its client has closed the WebSocket
        self._received = 0  # messages of the client since it has that
        self._lost = False  # its client has no WebSocket
        self._moved = asyncio.Event()  # it has another WebSocket, or has ended
        self._ended = False
        self._engine = engine
        self._config = config
        self._number = number
        self._door = door
        self._outbox = SendQueue(config.unread_bytes, config.unread_seconds)
        self._session = Session(config.max_streams, config.waiting_bytes)
        self._heard = 0.0  # When the client last said something (loop time).
        self._draining = asyncio.Event()
        self._farewell = HangUp(_GOING_DOWN, "the server is going down")  # What ends it when it drains.

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._session.streams

    @property
    def waits(self) -> bool:
        """Whether its WebSocket was lost, and it waits for its client."""
        return self._lost

    @property
    def guest(self) -> bool:
        """Whether it has no place of its own: it was let in to go on with another one."""
        return self._room is not None

    def drain(self, code: int, reason: str) -> None:
        """Take nothing new; when the running replies have ended, or after `drain_seconds`, close with this code and
        reason. Replies that rest end at once."""
        self._farewell = HangUp(code, reason)
        self._session.drain()
        self._draining.set()

    async def run(self) -> ServedSocket | None:
        """Serve the client until it goes, is hung up on, or the server drains; then close its streams.

        Returns the older connection to which the WebSocket belongs now, if its client goes on with one.
        """
        hang_up: HangUp | None = None
        older: ServedSocket | None = None
        work: SessionTasks | None = None
        self._heard = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as tasks:
                label = f"connection={self._number}"
                folder = self._config.snapshots
                work = SessionTasks(self._session, self._engine, self._tell, tasks, label, self._account, folder)
                self._take(self._door.greet(), work)
                tasks.create_task(self._send(), name=f"connection {self._number} sender")
                tasks.create_task(self._watch(work), name=f"connection {self._number} watch")
                await self._receive(work)
                raise HangUp(1005, "client gone")
        except* HangUp as group:
            hang_up = _first(group)
        except* Moved as group:
            older = next(error.older for error in group.exceptions if isinstance(error, Moved))
        finally:
            self._ended = True
            self._kept.pop(self._token or "", None)
            if hang_up is not None and hang_up.code != 1005:
                await self._hang_up(hang_up)
            if work is not None:
                await work.close()
            self._moved.set()
        return older

    async def serve_on(self, websocket: WebSocket) -> None:
        """Wait as long as this is its WebSocket."""
        while self._websocket is websocket and not self._ended:
            self._moved.clear()
            await self._moved.wait()

    def _take(self, said: Iterable[bytes | Command | Moving], work: SessionTasks) -> None:
        """Pass on what the door has made of a message: commands to the session, the rest to the client."""
        for part in said:
            match part:
                case bytes():
                    self._outbox.put(part)
                case ResumeConnection():
                    self._go_on_with(part)
                case KeepConnection(closed=closed):
                    self._take_place()
                    self._keeps_closed = closed
                    self._keep()
                case _:
                    self._take_place()
                    work.take(part)

    def _take_place(self) -> None:
        """It is a connection like any other from now on. HangUp where the server is full."""
        if self._room is not None and not self._room():
            raise HangUp(1013, f"connections: at most {self._config.max_connections}, got one more")
        self._room = None

    # ---- another WebSocket ----
    def _keep(self) -> None:
        if self._token is not None:
            raise ResumeError("keep: expected once on a connection, since both sides count from there, got it again")
        self._token = secrets.token_urlsafe(24)
        self._kept[self._token] = self
        self._tell(ConnectionKept(token=self._token, seconds=self._config.resume_seconds))
        self._outbox.count()
        self._received = 0

    def _go_on_with(self, asked: ResumeConnection) -> None:
        """Give the WebSocket to the connection of this token: raises Moved, or ResumeError where that cannot be."""
        older = self._kept.get(asked.token)
        if older is None or older is self or self._session.streams or not self._is_like(older):
            raise ResumeError(
                "resume: expected the token of a connection that is kept, as the first message, got another"
            )
        if older.waits:  # else its place is free in the same moment
            self._take_place()
        older._go_on(self._websocket, asked)
        raise Moved(older)

    def _is_like(self, older: ServedSocket) -> bool:
        """Whether both speak the same protocol, and their clients have the same key."""
        return type(older._door) is type(self._door) and older._account is self._account

    def _go_on(self, websocket: WebSocket, asked: ResumeConnection) -> None:
        """Its client is here again."""
        told = self._door.tell(ConnectionResumed(received=self._received, terms=asked.terms))
        frames = b"".join(part for part in told if isinstance(part, bytes))
        if not self._outbox.rewind(asked.received, frames):
            raise ResumeError(f"resume: expected a number of messages that are still kept, got {asked.received}")
        before, self._websocket = self._websocket, websocket
        self._heard = asyncio.get_running_loop().time()
        self._moved.set()
        log.info("connection %d goes on after a loss", self._number, extra={"connection": self._number})
        self._account.meter.resumed.inc()
        if not self._lost:  # nobody has noticed
            _cut(before, HangUp(1001, "the client goes on elsewhere"), 0.0)
        self._lost = False

    async def _comes_back(self, websocket: WebSocket, code: int | None) -> bool:
        """This WebSocket is lost: wait until there is another one. False where none may come, or none does."""
        if self._websocket is not websocket:
            return True
        left = websocket.scope.get("extensions", {}).get("penstock.left")
        waiting = sum(connection.waits for connection in self._kept.values())
        # By its client, or by the server that goes down.
        ended = code == _GOING_DOWN if self._keeps_closed else left is None or left() or code not in _NO_CLOSE
        gone = self._token is None or ended or self._draining.is_set()
        if gone or waiting >= self._config.max_connections:
            return False
        seconds, extra = self._config.resume_seconds, {"connection": self._number}
        log.info("connection %d lost: its streams wait %g s", self._number, seconds, extra=extra)
        self._lost = True
        try:
            async with asyncio.timeout(self._config.resume_seconds):
                await self.serve_on(websocket)
        except TimeoutError:
            return False
        return not self._ended

    def _tell(self, answer: Answer) -> list[Command]:
        """Tell the client of an answer; the commands that its door makes of it."""
        commands: list[Command] = []
        for part in self._door.tell(answer):
            if isinstance(part, bytes):
                self._outbox.put(part)
            else:
                commands.append(part)
        return commands

    # ---- the sender ----
    async def _send(self) -> None:
        while True:
            frame, websocket = await self._outbox.next(), self._websocket
            write = websocket.scope.get("extensions", {}).get("penstock.write")
            if (write is None or not write(frame)) and not await self._send_slowly(websocket, frame):
                continue
            if self._websocket is websocket:
                self._outbox.done()

    async def _send_slowly(self, websocket: WebSocket, frame: bytes) -> bool:
        """Send a frame when the client has read what is before it. False if its WebSocket was lost; HangUp if it does
        not read, or has gone for good."""
        try:
            async with asyncio.timeout(self._config.unread_seconds):
                await websocket.send({"type": "websocket.send", "text": frame.decode()})
        except TimeoutError:
            raise self._outbox.too_slow(self._config.unread_seconds) from None
        except (WebSocketDisconnect, RuntimeError):  # Starlette: RuntimeError once the receive task saw the end.
            if self._token is None:
                raise HangUp(1005, "client gone") from None
            await self.serve_on(websocket)  # the receive task knows how long
            return False
        return True

    async def _hang_up(self, hang_up: HangUp) -> None:
        extra = {"connection": self._number, "code": hang_up.code}
        log.info("connection %d closed code=%d reason=%r", self._number, hang_up.code, hang_up.reason, extra=extra)
        if _cut(self._websocket, hang_up, FLUSH_SECONDS):
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
            websocket = self._websocket
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                if not await self._comes_back(websocket, message.get("code")):
                    return
                continue
            if self._websocket is not websocket:
                continue  # it is sent once more
            self._heard = loop.time()
            self._received += 1
            text, data = message.get("text"), message.get("bytes") or b""
            try:
                if text is not None and len(text) > self._config.max_text_bytes:
                    raise ServerLimitError(
                        f"text message: at most {self._config.max_text_bytes} characters, got {len(text)}"
                    )
                self._take(self._door.hear(data if text is None else text), work)
            except PenstockError as error:
                stream, ref = (error.stream, error.ref) if isinstance(error, MessageError) else (None, None)
                refused = refusal(error, stream, ref)
                self._account.meter.errors.labels(refused.code).inc()
                for command in self._tell(refused):
                    work.take(command)

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
            async with asyncio.timeout(0 if self._lost else FLUSH_SECONDS):
                await self._outbox.wait_sent()
        except TimeoutError:
            pass  # The client does not read; what is left is lost with it.
        raise self._farewell


def _cut(websocket: WebSocket, hang_up: HangUp, seconds: float) -> bool:
    """End a WebSocket without waiting for its client; False where the server has no such way."""
    cut = websocket.scope.get("extensions", {}).get("penstock.cut")
    if cut is not None:
        cut(hang_up.code, hang_up.reason, seconds)
    return cut is not None


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
