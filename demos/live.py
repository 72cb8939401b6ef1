"""Play a film to a model that speaks while it watches: `python -m penstock.demos.live`.

Draws and encodes a film (or takes a file), starts `penstock serve` on a free port (or takes a URL), sends the file's
bytes over a WebSocket at the file's own pace in format `live`, asks a question at a third of it, and prints with each
token the media time of the newest frame that the model had seen. Out go words for people, or with `--json` one object a
line.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from penstock import (
    Appended,
    Closed,
    Dropped,
    Error,
    Event,
    Item,
    PenstockError,
    ReplyDone,
    ReplyStarted,
    Request,
    SamplingParams,
    Token,
    VideoBytes,
    connect,
)

from .brook.film import CONTAINERS
from .film import Film, FilmPiece, make_film, read_film
from .process import running_server
from .view import FilmFacts, FilmView, JsonFilmView, TextFilmView

PICTURES = ("video", "unit", "image", "frame")


class Watcher:
    """Notes what the model had seen when it spoke, and tells the view."""

    def __init__(self, view: FilmView) -> None:
        self.played_us = 0  # Media time that has been sent.
        self.media_over = False
        self.seen_us: int | None = None  # Where the newest frame that the model has seen stops.
        self.asked_at: float | None = None
        self.first_token_ms: float | None = None
        self.tokens_before_end = 0
        self.tokens_after_end = 0
        self._view = view

    async def follow(self, events: AsyncIterator[Event], reply_over: asyncio.Event) -> None:
        """Take the events of a stream to its end. PenstockError where it fails."""
        async for event in events:
            self._note(event)
            if isinstance(event, ReplyDone):
                reply_over.set()
            if isinstance(event, Error) and event.fatal:
                raise PenstockError(f"the stream has ended: {event.code}: {event.message}")
            if isinstance(event, Closed):
                reply_over.set()

    def _note(self, event: Event) -> None:
        match event:
            case Appended() if event.modality in PICTURES:
                # Events come in the order of the steps: a later token was made with this frame in view.
                self.seen_us = event.stop_us
            case Token():
                if event.seen is not None and event.seen.modality in PICTURES:
                    self.seen_us = event.seen.stop_us
                if self.first_token_ms is None and self.asked_at is not None:
                    self.first_token_ms = (time.monotonic() - self.asked_at) * 1000
                self.tokens_after_end += self.media_over
                self.tokens_before_end += not self.media_over
                self._view.token(event, self.seen_us, self.played_us)
                return
        if isinstance(event, Appended | ReplyStarted | ReplyDone | Dropped | Error | Closed):
            self._view.event(event, self.played_us)


class Sink(Protocol):
    """The stream that the film is played to."""

    async def append(self, item: Item) -> int:
        """Send an item."""
        ...

    async def end(self) -> None:
        """Say that the media has ended."""
        ...


async def play(stream: Sink, film: Sequence[FilmPiece], watcher: Watcher, third: asyncio.Event) -> None:
    """Send the film at its own pace. Sets `third` when a third of it has been sent."""
    started = time.monotonic()
    length_us = film[-1].time_us
    for number, piece in enumerate(film, 1):
        await asyncio.sleep(started + piece.time_us / 1e6 - time.monotonic())
        await stream.append(VideoBytes(piece.data, final=number == len(film)))
        watcher.played_us = piece.time_us
        if piece.time_us >= length_us / 3:
            third.set()
    third.set()
    watcher.media_over = True
    await stream.end()


async def watch(url: str, film: Film, options: argparse.Namespace, view: FilmView) -> Watcher:
    """Play `film` to the server at `url`, ask, and follow the reply until it ends."""
    watcher = Watcher(view)
    async with connect(url, options.api_key) as connection:
        stream = await connection.stream(Request(format="live"))
        welcome = connection.welcome
        view.started(
            FilmFacts(
                model=welcome.model,
                family=welcome.family,
                live_trained=welcome.live_trained,
                format=stream.format,
                why=stream.why,
                film=film.contents,
                length_us=film.pieces[-1].time_us,
            )
        )
        third, reply_over = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watcher.follow(stream, reply_over), name="events")
            playing = tasks.create_task(play(stream, film.pieces, watcher, third), name="player")
            await third.wait()
            watcher.asked_at = time.monotonic()
            await stream.watch(options.question, SamplingParams(max_tokens=options.max_tokens))
            await playing
            try:
                async with asyncio.timeout(options.tail_seconds):
                    await reply_over.wait()
            except TimeoutError:
                await stream.interrupt()
                await reply_over.wait()
            await stream.close()
    return watcher


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 where the model spoke before the film was over."""
    options = _parser().parse_args(arguments)
    view = JsonFilmView() if options.json else TextFilmView()
    try:
        film = read_film(options.file.read_bytes() if options.file else make_film(options.seconds, options.container))
        return asyncio.run(_run(film, options, view))
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, PenstockError) as error:
        print(f"live: error: {error}", file=sys.stderr)
        return 1
    except ExceptionGroup as group:
        print(f"live: error: {group.exceptions[0]}", file=sys.stderr)
        return 1


async def _run(film: Film, options: argparse.Namespace, view: FilmView) -> int:
    if options.url is not None:
        watcher = await watch(options.url, film, options, view)
    else:
        async with running_server(options.model, view.waiting) as url:
            watcher = await watch(url, film, options, view)
    view.summary(watcher.tokens_before_end, watcher.tokens_after_end, watcher.first_token_ms, watcher.played_us)
    return 0 if watcher.tokens_before_end else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m penstock.demos.live", description="A model speaks while it watches."
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of the film that is drawn (default 12)")
    parser.add_argument("--container", choices=CONTAINERS, default="mp4", help="H.264 and AAC, or VP8 and Opus")
    parser.add_argument("--file", type=Path, help="play this film instead (WebM, MP4, MPEG-TS)")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--api-key", help="its key")
    parser.add_argument("--model", help="the model to serve; without it Brook")
    parser.add_argument("--question", default="Tell me what happens.")
    parser.add_argument("--max-tokens", type=int, default=4000)
    parser.add_argument(
        "--tail-seconds", type=float, default=1.0, help="how long the reply may go on after the film (default 1)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
