"""The client of `/v1/stream`: `async with penstock.connect(url) as connection`, or `await penstock.connect(url)`. No
torch; needs `websockets`.

In come requests; out go streams, whose items, questions and events go over the one connection. It is always read. If
its WebSocket is lost, another one goes on with it (client_socket.py).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Generator
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
from websockets.typing import Subprotocol

from ..actors import oneshot
from ..errors import InputError, PenstockError, StreamClosedError
from ..streams import event as events
from ..streams.requests.request import Request, SamplingParams
from . import wire
from .client_socket import LastingSocket
from .client_stream import ClientStream, Encode
from .errors import ConnectionLostError, ServerLimitError, error_from_code
from .inline import inline


class _Envelope(msgspec.Struct):
    type: str
    stream: str | None = None
    number: int = 0


_head_decoder = msgspec.json.Decoder(_Envelope)
_answer_decoder = msgspec.json.Decoder(wire.Answer)
_event_decoder = msgspec.json.Decoder(events.Event)
_PIECE_BYTES = 8 << 20  # A file up to here is whole for the server, whose sound is then scaled as a whole.
_ANSWERS = {"welcome", "opened", "forked", "accepted", "pong"}


DEFAULTS = Request()


class Connection:
    """A connection to a server: `async with connect(url) as connection`, or `connection = await connect(url)` and
    `await connection.close()` in the end. `welcome` is what the server said first.

    If the WebSocket is lost, the connection goes on by itself over another one, for as long as the server keeps it
    (`resume_seconds`, 30). No message is lost and none comes twice; calls wait meanwhile.
    """

    def __init__(self, url: str, api_key: str | None = None, resume: bool = True) -> None:
        self.url = _socket_url(url)
        self._socket = LastingSocket(self.url, _shown(api_key), resume)
        self._reader: asyncio.Task[None] | None = None
        self._streams: dict[str, ClientStream] = {}
        self._calls: dict[str, tuple[str | None, asyncio.Future[wire.Answer]]] = {}  # By ref: stream, answer.
        self._numbers = itertools.count(1)
        self._lost: ConnectionLostError | None = None

    def __await__(self) -> Generator[Any, None, Connection]:
        """The same as entering it."""
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Connection:
        """Connect and read the welcome. ConnectionLostError where the server refuses or cannot be reached."""
        await self._socket.open()
        self._reader = asyncio.create_task(self._read(), name="penstock client reader")
        return self

    @property
    def welcome(self) -> wire.Welcome:
        """What the server said first."""
        return self._socket.welcome

    @property
    def resumed(self) -> int:
        """How often its WebSocket was lost, and it went on over another one."""
        return self._socket.resumed

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the socket, and with it all streams; idempotent."""
        if self._reader is not None:
            await self._socket.close()
            await self._reader

    async def stream(self, request: Request = DEFAULTS, *, name: str | None = None) -> ClientStream:
        """Open a stream. Media beside a prompt is read and encoded here and goes inside the message.

        PenstockError where the server refuses it, InputError for media that is none or that the wire has no form for,
        ServerLimitError where the message would be over the server's `text_bytes`.
        """
        request.check()
        if request.messages is not None or request.media:
            request = await asyncio.to_thread(inline, request)
        name = name or f"stream-{next(self._numbers)}"
        fields = {field: getattr(request, field) for field in Request.__struct_fields__}
        fields["params"] = wire.wire_params(request.params)
        return await self._open(
            name,
            lambda ref: wire.encode_command(wire.OpenMessage(stream=name, ref=ref, **fields)),
            request.starts,
        )

    async def restore(self, file: str, *, name: str | None = None) -> ClientStream:
        """Go on with a stream that `ClientStream.snapshot` has written, on this server. A reply that ran goes on: its
        tokens come as events, under the number that it had.

        file: the name that the snapshot was given. name: that of the stream.

        Raises InputError if there is no such file or it does not fit the server's model.
        """
        name = name or f"stream-{next(self._numbers)}"
        return await self._open(
            name, lambda ref: wire.encode_command(wire.RestoreMessage(stream=name, name=file, ref=ref))
        )

    async def generate(self, request: Request, params: SamplingParams | None = None) -> str:
        """One reply to the request's prompt, whole, as `Engine.generate` gives it. Raises as `stream` does; after a
        cancelled call nothing is left of it on the server.
        """
        return await oneshot.generate(self, request, params)

    async def generate_all(self, request: Request, n: int, params: SamplingParams | None = None) -> list[str]:
        """`n` replies to the request's prompt, as `Engine.generate_all` gives them; it is sent and computed once. Each
        takes a stream of this connection while it runs.
        """
        return await oneshot.generate_all(self, request, n, params)

    async def open_copy(self, source: ClientStream, again: SamplingParams | None, **back: int | None) -> ClientStream:
        """A fork of `source`."""
        name = f"{source.name}-{next(self._numbers)}"
        params = None if again is None else wire.wire_params(again)

        def encode(ref: str) -> str:
            return wire.encode_command(wire.ForkMessage(stream=source.name, as_=name, again=params, ref=ref, **back))

        return await self._open(name, encode, again is not None)

    @property
    def piece_bytes(self) -> int:
        """How much of a file goes into one message."""
        return min(_PIECE_BYTES, int(self.welcome.limits["message_bytes"]) // 2)

    async def ping(self) -> None:
        """Wait for an answer of the server."""
        await self.call(lambda ref: wire.encode_command(wire.Ping(ref=ref)), None)

    async def _open(self, name: str, encode: Encode, prompted: bool = False) -> ClientStream:
        if name in self._streams:
            raise InputError(f"name: expected one that is not in use, got {name!r}")
        stream = self._streams[name] = ClientStream(self, name, prompted)  # Its events may come right after the answer.
        try:
            await self.call(encode, name)
        except PenstockError:
            self._streams.pop(name, None)
            raise
        except asyncio.CancelledError:
            # The server may have opened it: nobody will use it.
            asyncio.get_running_loop().call_soon(self._abandon, name)
            raise
        return stream

    def _abandon(self, name: str) -> None:
        close = wire.encode_command(wire.CloseMessage(stream=name))
        task = asyncio.create_task(self.send(close), name=f"abandon {name}")
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def send(self, frame: str | bytes) -> int:
        """Send one frame; returns its number. ConnectionLostError where the connection has gone."""
        if self._lost is not None:
            raise self._lost
        return await self._socket.send(frame)

    async def call(self, encode: Encode, stream: str | None) -> wire.Answer:
        """Send `encode(ref)` and wait for the answer with that ref. PenstockError where it is an error."""
        ref = str(next(self._numbers))
        frame = encode(ref)
        self._check_size(frame)
        answer: asyncio.Future[wire.Answer] = asyncio.get_running_loop().create_future()
        self._calls[ref] = (stream, answer)
        try:
            number = await self.send(frame)
            answer.add_done_callback(lambda done: done.cancelled() or self._socket.arrived(number))
            return await answer
        finally:
            del self._calls[ref]

    def _check_size(self, frame: str | bytes) -> None:
        """The server answers a text that is too long without its ref, and a binary message with the end of all."""
        limits = self.welcome.limits
        kind, most = "binary", int(limits["message_bytes"])
        if isinstance(frame, str):
            kind, most = "text", min(most, int(limits["text_bytes"]))
        if len(frame) > most:
            raise ServerLimitError(
                f"{kind} message: the server takes at most {most} bytes, got {len(frame)}; larger media is "
                "appended to a stream"
            )

    async def _read(self) -> None:
        """Read to the end of the connection; then fail what still waits."""
        try:
            async for frame in self._socket.frames():
                self._take(frame)
        except ConnectionLostError as error:
            self._lost = lost = error
            for _, answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(lost)
        for name in list(self._streams):
            self._ended(name, events.Closed(reason="connection lost"))

    def _take(self, frame: str | bytes) -> None:
        head = _head_decoder.decode(frame)
        is_answer = head.type in _ANSWERS or (head.type == "error" and head.number == 0)
        if not is_answer:
            event = _event_decoder.decode(frame)
            if isinstance(event, events.Closed):
                self._ended(head.stream or "", event)
            elif head.stream in self._streams:
                self._streams[head.stream].put(event)
            return
        answer = _answer_decoder.decode(frame)
        if isinstance(answer, wire.Opened | wire.Forked) and answer.stream in self._streams:
            self._streams[answer.stream].opened(answer)
        _, waiting = self._calls.get(getattr(answer, "ref", None) or "", (None, None))
        if waiting is not None and not waiting.done():
            if isinstance(answer, wire.WireError):
                waiting.set_exception(error_from_code(answer.code, answer.message, answer.path))
            else:
                waiting.set_result(answer)
        elif isinstance(answer, wire.WireError) and answer.stream in self._streams:
            error = events.Error(code=answer.code, message=answer.message, seq=answer.seq, fatal=answer.fatal)
            self._streams[answer.stream].put(error)

    def _ended(self, name: str, event: events.Closed) -> None:
        stream = self._streams.pop(name, None)
        if stream is None:
            return
        stream.put(event)
        for waited, answer in self._calls.values():
            if waited == name and not answer.done():
                answer.set_exception(StreamClosedError(f"stream {name!r} has ended ({event.reason})"))


def connect(url: str, api_key: str | None = None, *, resume: bool = True) -> Connection:
    """A connection to the server at `url` (http, https, ws, wss, or just HOST:PORT), to be awaited or entered with
    `async with`. `resume` False: if its WebSocket is lost, all streams end at once."""
    return Connection(url, api_key, resume)


def _socket_url(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.netloc:
        raise InputError(f"url: expected HOST:PORT, or http://, https://, ws:// or wss:// and a host, got {url!r}")
    path = parts.path if parts.path.strip("/") else "/v1/stream"
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, parts.query, ""))


def _shown(api_key: str | None) -> dict[str, Any]:
    """How a handshake shows the key. InputError for one that no server has."""
    if api_key is None:
        return {}
    api_key = api_key.strip()  # as servers do
    if not api_key or not api_key.isprintable():
        raise InputError("api_key: expected at least one character, and none that cannot be printed")
    if api_key.isascii():
        return {"additional_headers": {"Authorization": f"Bearer {api_key}"}}
    key = Subprotocol(wire.KEY_SUBPROTOCOL + quote(api_key, safe=""))  # A header has no form for it that all know.
    return {"subprotocols": [Subprotocol(wire.SUBPROTOCOL), key]}
