"""One WebSocket connection: its receive task, its one sender task, its streams.

In come WebSocket messages, which are read at all times: nothing in the receive task waits for a stream, a reply or the
client. Out go answers and events through one bounded outbox; a client that leaves too much of it unread loses its
connection, and nobody else's. When `run` returns, all streams of the connection are closed and no task of it is left.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..errors import StreamClosedError
from . import wire
from .channel import Channel, ForkOrder, Opener, error_frame
from .config import ServerConfig
from .errors import DrainingError, MessageError, PenstockError, ServerLimitError, StreamNameError, UnknownStreamError
from .outbox import HangUp, Outbox

if TYPE_CHECKING:
    from ..actors.engine import Engine
    from ..actors.stream import Stream

log = logging.getLogger("penstock.server")

# How long a closing connection may take to flush what is queued, and to answer the close frame.
FLUSH_SECONDS = 2.0
# Names of ended streams that are remembered, for a better error.
ENDED_NAMES = 256


class Connection:
    """One client. `run` is its whole life; `drain` asks it to come to an end."""

    def __init__(self, websocket: WebSocket, engine: Engine, config: ServerConfig, number: int) -> None:
        self._websocket = websocket
        self._engine = engine
        self._config = config
        self._number = number
        self._outbox = Outbox(config.unread_bytes, config.unread_seconds)
        self._channels: dict[str, Channel] = {}
        self._ended: dict[str, None] = {}  # Names of streams that have ended, oldest first.
        self._opened = 0  # Streams opened so far; numbers them in the log.
        self._tasks: asyncio.TaskGroup | None = None  # While `run` runs.
        self._heard = 0.0  # When the client last said something or a reply last ended (loop time).
        self._draining = asyncio.Event()
        self._farewell = HangUp(1012, "the server is going down")  # What ends it when it drains.
        self._changed = asyncio.Event()  # A reply or a stream has ended.

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._channels)

    def drain(self, code: int, reason: str) -> None:
        """Take nothing new; when the running replies have ended, or after `drain_seconds`, close with this code and
        reason. Replies that rest end at once."""
        self._farewell = HangUp(code, reason)
        self._draining.set()
        for channel in self._channels.values():
            channel.draining = True

    async def run(self) -> None:
        """Serve the client until it goes, is hung up on, or the server drains; then close its streams."""
        hang_up: HangUp | None = None
        self._heard = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._outbox.put(wire.encode_answer(self._welcome()))
                tasks.create_task(self._send(), name=f"connection {self._number} sender")
                tasks.create_task(self._watch(tasks), name=f"connection {self._number} watch")
                await self._receive()
                raise HangUp(1005, "client gone")
        except* HangUp as group:
            hang_up = _first(group)
        finally:
            if hang_up is not None and hang_up.code != 1005:
                await self._hang_up(hang_up)
            for channel in list(self._channels.values()):
                await channel.close()
            self._channels.clear()

    def _welcome(self) -> wire.Welcome:
        info, config = self._engine.info, self._config
        return wire.Welcome(
            version=wire.VERSION,
            model=model_name(info.model),
            family=info.family,
            modalities=info.modalities,
            formats=info.formats,
            live_trained=info.live_trained,
            limits={
                "streams": config.max_streams,
                "message_bytes": config.max_message_bytes,
                "text_bytes": config.max_text_bytes,
                "waiting_bytes": config.waiting_bytes,
                "unread_bytes": config.unread_bytes,
                "unread_seconds": config.unread_seconds,
                "idle_seconds": config.idle_seconds,
                "positions": info.max_positions,
                "kv_tokens": info.kv_tokens,
            },
        )

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
    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self._heard = loop.time()
            text, data = message.get("text"), message.get("bytes") or b""
            try:
                if text is not None:
                    if len(text) > self._config.max_text_bytes:
                        raise ServerLimitError(
                            f"text message: at most {self._config.max_text_bytes} characters, got {len(text)}"
                        )
                    command = wire.decode_text(text)
                else:
                    command = wire.decode_binary(data)
            except PenstockError as error:
                stream, ref = (error.stream, error.ref) if isinstance(error, MessageError) else (None, None)
                self._outbox.put(error_frame(error, stream, ref))
                continue
            self._take(command, len(data if text is None else text))

    def _take(self, command: wire.Command, size: int) -> None:
        if isinstance(command, wire.Ping):
            self._outbox.put(wire.encode_answer(wire.Pong(ref=command.ref)))
            return
        try:
            match command:
                case wire.Open():
                    request = command.request()
                    self._open(command.stream, command, lambda: self._engine.stream(request))
                case wire.Fork():
                    source = self._channel(command.stream)
                    again = None if command.again is None else wire.plain_params(command.again)
                    order = ForkOrder(command.stream, command.ref, again)
                    self._open(command.as_, order, lambda: _result(order.copy))
                    try:
                        source.offer(order, size)
                    except PenstockError as error:
                        order.copy.set_exception(error)  # the new name's channel tells the client
                case _:
                    self._channel(command.stream).offer(command, size)
        except PenstockError as error:
            self._outbox.put(error_frame(error, command.stream, command.ref))

    def _channel(self, name: str) -> Channel:
        channel = self._channels.get(name)
        if channel is not None:
            return channel
        if name in self._ended:
            raise StreamClosedError(f"stream {name!r} has ended: expected an open stream")
        raise UnknownStreamError(f"stream {name!r} is not open on this connection: expected a name that `open` gave")

    def _open(self, name: str, opening: wire.Open | ForkOrder, opener: Opener) -> None:
        if self._draining.is_set():
            raise DrainingError("the server is going down: expected no new streams, got one")
        if name in self._channels:
            raise StreamNameError(f"stream {name!r} is open on this connection: expected another name")
        if len(self._channels) >= self._config.max_streams:
            raise ServerLimitError(f"streams of one connection: at most {self._config.max_streams}, got one more")
        assert self._tasks is not None
        self._opened += 1
        label = f"connection={self._number} stream={self._opened}"
        channel = Channel(name, label, self._outbox, self._config.waiting_bytes, self._stirred)
        self._channels[name] = channel
        self._tasks.create_task(self._live(channel, opening, opener), name=label)

    def _stirred(self) -> None:
        """A reply has begun or ended, or a question has come to nothing."""
        self._heard = asyncio.get_running_loop().time()
        self._changed.set()

    # ---- the life of a stream, and of the connection ----
    async def _live(self, channel: Channel, opening: wire.Open | ForkOrder, opener: Opener) -> None:
        await channel.run(opening, opener)
        await channel.close()
        self._channels.pop(channel.name)
        self._ended[channel.name] = None
        if len(self._ended) > ENDED_NAMES:
            self._ended.pop(next(iter(self._ended)))
        self._changed.set()

    async def _watch(self, tasks: asyncio.TaskGroup) -> None:
        """Hang up on an idle client, and when the server drains."""
        loop = asyncio.get_running_loop()
        while not self._draining.is_set():
            if any(channel.busy for channel in self._channels.values()):
                self._heard = loop.time()
            left = self._heard + self._config.idle_seconds - loop.time()
            if left <= 0:
                raise HangUp(1008, f"idle: no message for {self._config.idle_seconds:g} s")
            await _wait(self._draining, left)
        for channel in self._channels.values():
            tasks.create_task(channel.no_more_media(), name=f"{channel.label} end")
        deadline = loop.time() + self._config.drain_seconds
        while any(channel.busy for channel in self._channels.values()) and loop.time() < deadline:
            self._changed.clear()
            await _wait(self._changed, deadline - loop.time())
        deadline = loop.time() + FLUSH_SECONDS
        for channel in list(self._channels.values()):
            await channel.close()
        while self._channels and loop.time() < deadline:
            self._changed.clear()
            await _wait(self._changed, deadline - loop.time())
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


async def _result(copy: asyncio.Future[Stream]) -> Stream:
    """The stream of a fork. Cancelled when it is already there, it closes it: nobody else would."""
    try:
        return await copy
    except asyncio.CancelledError:
        if copy.done() and not copy.cancelled() and copy.exception() is None:
            await copy.result().close()
        raise


def model_name(model: str) -> str:
    """What clients are told of a model: of a folder its own name, not where it is; an id on the Hub as it is."""
    path = Path(model).expanduser()
    is_folder = path.is_dir() or path.is_absolute() or model.startswith(".") or model.count("/") > 1
    return path.resolve().name if is_folder else model


def _first(group: BaseExceptionGroup[HangUp]) -> HangUp:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
