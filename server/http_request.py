"""One HTTP request that asks for replies, from its body to the end of its answer.

In come a request whose headers have been looked at, an engine and the door that knows what its body means. Out goes one
answer: a body, or server-sent events as they come. The request is a session of its own: when its answer is complete, or
its client has gone, its streams are closed and none of its tasks is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Send

from ..errors import code_of
from ..streams.requests.prompt import check_inline
from .account import Account
from .commands import Answer, Command, OpenStream
from .config import ServerConfig
from .errors import DrainingError, HangUp, PenstockError
from .fetching import Fetcher, refuse_urls
from .kept_media import KeptMedia
from .openai_words import Failure, RequestBody, RequestMark, failure, refused
from .session import Session, refusal
from .session_tasks import SessionTasks
from .telemetry import CALLER, caller_of

if TYPE_CHECKING:
    from ..actors.engine import Engine
    from ..actors.info import EngineInfo

log = logging.getLogger("penstock.server")

_EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}


class HttpDoor(Protocol):
    """One request of one client, after its body."""

    streams: bool  # the answer is server-sent events
    media_type: str  # of the whole answer

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        ...

    @property
    def failure(self) -> Failure | None:
        """Why there is no answer, or no more of one."""
        ...

    def greet(self) -> Iterator[Command]:
        """What the session is to do."""
        ...

    def tell(self, answer: Answer) -> Iterator[bytes | Command]:
        """What follows from an answer of the session: commands, and events for a client that wants them."""
        ...

    def end(self) -> Iterator[bytes]:
        """The last events."""
        ...

    def body(self) -> bytes:
        """The whole answer, for a client that wants no events."""
        ...


MakeDoor = Callable[["EngineInfo", ServerConfig, RequestBody, RequestMark], HttpDoor]


class ServedRequest:
    """One request. `run` is its whole life; `drain` bounds how long its replies may go on."""

    def __init__(
        self,
        request: Request,
        engine: Engine,
        config: ServerConfig,
        number: int,
        account: Account,
        fetcher: Fetcher | None,
        kept: KeptMedia,
    ) -> None:
        """`account`: that of its key. `fetcher` gets media by its URL; None: nothing is fetched. `kept`: what clients
        have sent under names."""
        self._request = request
        self._engine = engine
        self._config = config
        self._number = number
        self._account = account
        self._fetcher = fetcher
        self._kept = kept
        self._session = Session(config.max_streams, config.waiting_bytes)
        self._later: list[Command] = []  # commands that answers have led to
        self._ready: list[bytes] = []  # events that are not sent yet
        self._unread = 0  # their bytes
        self._changed = asyncio.Event()
        self._filled = asyncio.Event()
        self._draining = asyncio.Event()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._session.streams

    @property
    def waits(self) -> bool:
        """Whether it waits for its client to come back: a request never does."""
        return False

    @property
    def guest(self) -> bool:
        """Whether it was let in without a place of its own: a request never is."""
        return False

    def drain(self, code: int, reason: str) -> None:
        """Go on for `drain_seconds` at most."""
        self._draining.set()

    async def run(self, make: MakeDoor, mark: RequestMark, headers: dict[str, str], send: Send) -> None:
        """Answer the request. It ends with its client; one that leaves too much of its answer unread gets no more."""
        answer = _AnswerWriter(headers, send)
        CALLER.set(caller_of(self._request.headers))
        try:
            try:
                body = RequestBody(await self._body(), self._request.headers.get("content-type", ""))
                door = make(self._engine.info, self._config, body, mark)
            except _TooLarge as error:
                self._count("request_too_large")
                await answer.fail(failure(413, str(error), None, "request_too_large"))
            except PenstockError as error:
                self._count(code_of(error))
                await answer.fail(refused(refusal(error)))
            else:
                await self._serve(door, answer)
        except (ClientDisconnect, _Gone):
            pass

    async def _body(self) -> bytes:
        most = self._config.max_message_bytes
        said = self._request.headers.get("content-length", "")
        if said.isdecimal() and int(said) > most:
            raise _TooLarge(f"body: expected at most {most} bytes, got {said}")
        pieces: list[bytes] = []
        size = 0
        async for piece in self._request.stream():
            size += len(piece)
            if size > most:
                raise _TooLarge(f"body: expected at most {most} bytes, got more")
            pieces.append(piece)
        return b"".join(pieces)

    async def _serve(self, door: HttpDoor, answer: _AnswerWriter) -> None:
        work: SessionTasks | None = None
        gone = slow = False
        try:
            async with asyncio.TaskGroup() as tasks:
                label = f"request={self._number}"

                def tell(told: Answer) -> None:
                    self._take(door, told)

                tasks.create_task(self._until_gone(), name=f"{label} client")
                tasks.create_task(self._until_late(tell), name=f"{label} drain")
                tasks.create_task(self._send(answer), name=f"{label} sender")
                work = SessionTasks(self._session, self._engine, tell, tasks, label, self._account)
                await self._begin(door, work, tell)
                await self._go_on(door, work)
                raise _Over
        except* _Over:
            pass
        except* _Gone:
            gone = True
        except* HangUp:
            slow = True
        finally:
            if work is not None:
                await work.close()
        if gone or slow:
            raise _Gone
        await self._end(door, answer)

    async def _begin(self, door: HttpDoor, work: SessionTasks, tell: Callable[[Answer], None]) -> None:
        try:
            for command in list(door.greet()):
                work.take(await self._fetched(command))
        except PenstockError as error:
            self._count(code_of(error))
            tell(refusal(error))

    def _count(self, code: str) -> None:
        """Count an error that the session knows nothing of."""
        self._account.meter.errors.labels(code).inc()

    async def _fetched(self, command: Command) -> Command:
        """The command with its media in it. InputError where some is neither in the request nor may be fetched."""
        if not isinstance(command, OpenStream) or command.request.messages is None:
            return command
        asked, key = command.request.messages, self._account.name
        messages = self._kept.fill(asked, key)
        if self._fetcher is None:
            refuse_urls(messages)
            fetched = 0
        else:
            messages, fetched = await self._fetcher.fill(messages)
        check_inline(messages, ())
        self._kept.keep(asked, messages, key)
        request = msgspec.structs.replace(command.request, messages=messages)
        return msgspec.structs.replace(command, request=request, size=command.size + fetched)

    async def _go_on(self, door: HttpDoor, work: SessionTasks) -> None:
        """Until the answer is complete."""
        while True:
            while self._later:
                work.take(self._later.pop(0))
            if door.done:
                return
            await self._changed.wait()
            self._changed.clear()

    def _take(self, door: HttpDoor, told: Answer) -> None:
        for part in door.tell(told):
            if isinstance(part, bytes):
                self._put(part)
            else:
                self._later.append(part)
        self._changed.set()

    def _put(self, event: bytes) -> None:
        self._unread += len(event)
        if self._unread > self._config.unread_bytes:
            raise HangUp(1013, f"slow reader: {self._unread} bytes unread, at most {self._config.unread_bytes}")
        self._ready.append(event)
        self._filled.set()

    async def _send(self, answer: _AnswerWriter) -> None:
        """Send events as they come. Cancelled, it has sent those that it has taken off, and no others."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            count = len(self._ready)
            events = b"".join(self._ready[:count])
            await answer.events(events)
            del self._ready[:count]
            self._unread -= len(events)

    async def _end(self, door: HttpDoor, answer: _AnswerWriter) -> None:
        if door.failure is not None and not (answer.begun or self._ready):
            await answer.fail(door.failure)
        elif door.streams:
            await answer.events(b"".join([*self._ready, *door.end()]))
            await answer.finish()
        else:
            await answer.whole(200, door.body(), door.media_type)

    async def _until_gone(self) -> None:
        """Wait until the client has gone."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        raise _Gone

    async def _until_late(self, tell: Callable[[Answer], None]) -> None:
        """Once the server drains, end what takes longer than `drain_seconds`."""
        await self._draining.wait()
        seconds = self._config.drain_seconds
        await asyncio.sleep(seconds)
        tell(
            refusal(DrainingError(f"the server is going down: expected a reply within {seconds:g} s, got a longer one"))
        )


class _AnswerWriter:
    """Writes one HTTP answer: a whole one, or events and then their end."""

    def __init__(self, headers: dict[str, str], send: Send) -> None:
        self._headers = headers
        self._send = send
        self.begun = False

    async def whole(self, status: int, body: bytes, media_type: str = "application/json") -> None:
        """The answer in one piece."""
        await self._begin(status, {"content-type": media_type, "content-length": str(len(body))})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, failure: Failure) -> None:
        """An error in place of an answer."""
        code = str(failure.body["error"]["code"])
        log.info("request refused %d %s", failure.status, code)
        await self.whole(failure.status, msgspec.json.encode(failure.body))

    async def events(self, events: bytes) -> None:
        """The next events."""
        if not self.begun:
            await self._begin(200, _EVENTS)
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def finish(self) -> None:
        """No more events come."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, status: int, headers: dict[str, str]) -> None:
        sent = [(name.encode(), value.encode("latin-1")) for name, value in {**self._headers, **headers}.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        self.begun = True


class _Over(Exception):
    """The answer is complete."""


class _Gone(Exception):
    """The client has gone, or does not read."""


class _TooLarge(Exception):
    """A body over the limit."""
