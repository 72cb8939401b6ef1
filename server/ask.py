"""`penstock ask MEDIA ... QUESTION`: shows media to a model, here or on a server, and prints what it says.

In come the options of the command line; out goes an exit code. The stream is the public one, of `Engine.load` or of
`penstock.connect`; only the former loads torch. Files are in sources.py, devices in capture.py, what is shown in
ask_view.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..engine.config import EngineConfig
from ..errors import InputError, PenstockError, StreamClosedError
from ..streams.event import Closed, Error, ReplyDone, ReplyStarted
from ..streams.requests.request import Request, SamplingParams
from ..streams.requests.structured import Structured
from . import demo_model
from .ask_view import JsonView, TextView, View
from .capture import Camera, Microphone
from .client import connect
from .errors import ConnectionLostError, error_from_code
from .progress import loading
from .sources import File, Source, Stdin, TimedItem

_EXAMPLE = 'penstock ask clip.mp4 "What happens?"'
_MEDIA = re.compile(r"-|(camera|microphone)(:\S*)?|\S+\.\w{2,4}")  # what looks like MEDIA and like no question
_ANSWER_TOKENS, _LIVE_TOKENS = 256, 4000
_WATCH_SECONDS = 5.0
_PATIENCE_SECONDS = 10.0  # A device that gives nothing for so long is broken.
_INTERRUPT_SECONDS = 5.0
_AHEAD = 4  # Pieces that are read before they are sent.


def main(options: argparse.Namespace, api_key: str | None, setup: EngineConfig, view: View | None = None) -> int:
    """Ask, where there is no URL a model that is loaded as `setup` says; 0 when the answer is there. `view` shows it;
    None: as the options say. PenstockError with one line for what goes wrong, KeyboardInterrupt on Ctrl-C.
    """
    *words, question = options.words
    if os.path.exists(question) or (not words and _MEDIA.fullmatch(question)):
        raise InputError(f"a question is missing behind {options.words[-1]}: expected, for example, {_EXAMPLE}")
    sources = [_source(word, options, followed=number < len(words)) for number, word in enumerate(words, 1)]
    for source in sources:
        source.check()
    if not sources and options.url is None and options.model is None:
        options.model = demo_model.for_words()
    view = view or (JsonView() if options.json else TextView(options.live))
    try:
        asyncio.run(_ask(options, _host(options, api_key, setup, view), sources, question, view))
    except BaseExceptionGroup as group:
        raise _first(group) from None
    finally:
        view.close()
    return 0


def _source(word: str, options: argparse.Namespace, followed: bool) -> Source:
    if word == "-":
        return Stdin(followed)
    kind, _, which = word.partition(":")
    if kind == "camera" or word.startswith("/dev/video"):
        return Camera(which if kind == "camera" else word, options.fps)
    if kind == "microphone":
        return Microphone(which)
    if "://" in word and not os.path.exists(word):
        raise InputError(f"{word}: nothing is fetched: download it first, or pipe it: curl -L URL | penstock ask - ...")
    return File(Path(word))


class _Host(NamedTuple):
    """What opens streams: an engine, or a connection."""

    model: str
    opener: Any


@contextlib.asynccontextmanager
async def _host(
    options: argparse.Namespace, api_key: str | None, setup: EngineConfig, view: View
) -> AsyncIterator[_Host]:
    if options.url is None:
        from huggingface_hub.utils.logging import set_verbosity_error

        from ..actors.engine import Engine

        # What is no error does not stand between the words.
        logging.getLogger("penstock").setLevel(logging.ERROR)
        set_verbosity_error()
        async with loading(options.model or "Brook", view.waiting):
            loaded = await Engine.load(options.model, revision=options.revision, config=setup)
        async with loaded as engine:
            yield _Host(engine.info.model, engine)
        return
    connection = connect(options.url, api_key)
    try:
        await connection.__aenter__()
    except ConnectionLostError as error:
        raise ConnectionLostError(_unconnected(error, connection.url, api_key)) from None
    try:
        yield _Host(connection.welcome.model, connection)
    finally:
        await connection.close()


def _unconnected(error: ConnectionLostError, url: str, api_key: str | None) -> str:
    if error.status == 401:
        wrong = "the key is wrong" if api_key else "the server wants a key"
        return f"{url}: {wrong}; give it in PENSTOCK_API_KEY or with --api-key-file"
    if error.status is None:
        return f"{error}; start a server with `penstock serve`, or leave out --url to load a model here"
    return str(error)


async def _ask(
    options: argparse.Namespace,
    hosting: contextlib.AbstractAsyncContextManager[_Host],
    sources: Sequence[Source],
    question: str,
    view: View,
) -> None:
    request = Request(
        system=options.system,
        format=options.format or ("live" if options.live else "turns"),
        policy="latest" if any(source.live for source in sources) else "block",
        video_fps=options.fps,
        processor=dict(options.processor),
    )
    params = SamplingParams(
        max_tokens=options.max_tokens or (_LIVE_TOKENS if options.live else _ANSWER_TOKENS),
        temperature=options.temperature,
        hold=options.live,
        structured=_structured(options),
    )
    request.check()
    params.check()
    async with hosting as host, await host.opener.stream(request) as stream:
        view.started(host.model, stream.format, stream.why)
        await _Talk(stream, view, options).run(sources, question, params)


def _structured(options: argparse.Namespace) -> Structured | None:
    """What the options say of the reply's form. Raises InputError where the schema cannot be read."""
    if options.json_schema is not None:
        try:
            return Structured(json_schema=options.json_schema.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"--json-schema: expected a file that can be read, got {options.json_schema}: {error}"
            ) from None
    choice = None if options.choice is None else options.choice.split(",")
    return None if choice is None and options.regex is None else Structured(choice=choice, regex=options.regex)


class _Talk:
    """One question about some media on one stream."""

    def __init__(self, stream: Any, view: View, options: argparse.Namespace) -> None:
        self._stream = stream
        self._view = view
        self._options = options
        self._names: dict[int, str] = {}  # Of the media, by number of input.
        self._speaking = False
        self._interrupting = self._closing = False
        self._over = asyncio.Event()  # The reply, or the stream, has ended.

    async def run(self, sources: Sequence[Source], question: str, params: SamplingParams) -> None:
        """Show the media, ask and wait for the answer. Cancelled, it ends the reply and waits for its end."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="events")
            try:
                if self._options.live:
                    await self._stream.ask(question, params)
                    await self._until_over(self._play(sources))
                else:
                    await self._play(sources)
                    await self._stream.ask(question, params)
                await self._over.wait()
            except asyncio.CancelledError:
                await self._interrupt()
                raise
            self._closing = True
            await self._stream.close()

    async def _until_over(self, playing: Any) -> None:
        """Play to the end, or until the reply has ended."""
        over = asyncio.create_task(self._over.wait(), name="end of the reply")
        player = asyncio.create_task(playing, name="media")
        try:
            await asyncio.wait({over, player}, return_when=asyncio.FIRST_COMPLETED)
            if player.done():
                await player
                await self._stream.end()
        finally:
            for task in (over, player):
                task.cancel()
            await asyncio.gather(over, player, return_exceptions=True)

    async def _interrupt(self) -> None:
        if self._speaking:
            self._interrupting = True
            with contextlib.suppress(PenstockError, TimeoutError):
                async with asyncio.timeout(_INTERRUPT_SECONDS):
                    await self._stream.interrupt()
                    await self._over.wait()

    async def _follow(self) -> None:
        """Show the events to the end of the stream. The first error ends all."""
        try:
            async for event in self._stream:
                self._view.event(event)
                match event:
                    case ReplyStarted():
                        self._speaking = True
                    case ReplyDone() if self._interrupting or event.reason in ("stop", "length"):
                        self._speaking = False
                        self._over.set()
                    case Error():
                        name = self._names.get(event.seq or 0)
                        raise error_from_code(event.code, f"{name}: {event.message}" if name else event.message)
                    case Closed() if not self._closing:
                        raise StreamClosedError(f"the stream has ended before the answer: {event.reason}")
        finally:
            self._speaking = False
            self._over.set()

    async def _play(self, sources: Sequence[Source]) -> None:
        """Files one after another, then all that is live at once."""
        start_us = 0
        for source in sources:
            if not source.live:
                start_us = await self._show(source, start_us)
        async with asyncio.TaskGroup() as tasks:
            for source in sources:
                if source.live:
                    tasks.create_task(self._show(source, start_us), name=source.name)

    async def _show(self, source: Source, start_us: int) -> int:
        """Send one source; returns where in time it stops."""
        paced = not source.live and (self._options.pace or self._options.live)
        seconds = self._options.seconds
        if seconds is None and source.live and not self._options.live:
            seconds = _WATCH_SECONDS
        began, reached_us = time.monotonic(), start_us
        pieces = _read(source.pieces(start_us, paced), source.name, _PATIENCE_SECONDS if source.live else None)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if paced and piece.stop_us is not None:
                    await asyncio.sleep(began + (piece.stop_us - start_us) / 1e6 - time.monotonic())
                self._names[await self._stream.append(piece.item)] = source.name
                reached_us = max(reached_us, piece.stop_us or 0)
                self._view.sent(piece.stop_us)
                if source.live and seconds is not None and reached_us - start_us >= seconds * 1e6:
                    break
        return reached_us


async def _read(pieces: Generator[TimedItem], name: str, patience: float | None) -> AsyncGenerator[TimedItem]:
    """The pieces, read in a thread that nobody waits for: a device or a pipe may never give another one."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[TimedItem | BaseException | None]()
    room, stopped = threading.Semaphore(_AHEAD), threading.Event()

    def pump() -> None:
        end: BaseException | None = None
        try:
            for piece in pieces:
                room.acquire()
                if stopped.is_set():
                    return
                loop.call_soon_threadsafe(queue.put_nowait, piece)
        except BaseException as error:  # Raised again where the pieces are taken.
            end = error
        finally:
            pieces.close()
            with contextlib.suppress(RuntimeError):  # The loop has ended before its media.
                loop.call_soon_threadsafe(queue.put_nowait, end)

    threading.Thread(target=pump, name=f"penstock-{name}", daemon=True).start()
    try:
        while True:
            try:
                async with asyncio.timeout(patience):
                    piece = await queue.get()
            except TimeoutError:
                raise InputError(f"{name}: expected media within {patience:g} s, got none") from None
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                return
            room.release()
            yield piece
    finally:
        stopped.set()
        room.release()


def _first(group: BaseExceptionGroup) -> BaseException:
    """The first error of a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
