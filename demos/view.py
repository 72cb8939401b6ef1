"""How the live demo shows itself: for people, or as one JSON object a line.

In come tokens and events with media times; out go lines on stdout. Knows nothing of sockets.
"""

from __future__ import annotations

import shutil
import sys
from typing import Any, NamedTuple, Protocol

import msgspec
from penstock import Closed, Dropped, Error, Event, ReplyDone, ReplyStarted, Token


class FilmFacts(NamedTuple):
    """What a viewer should know before the film begins."""

    model: str
    family: str
    live_trained: bool
    format: str
    why: str  # This format was chosen.
    film: str  # What it is made of.
    length_us: int


class FilmView(Protocol):
    """What both views can show. Times are media time in microseconds."""

    def waiting(self, what: str) -> None:
        """Something that takes a while has begun."""
        ...

    def started(self, facts: FilmFacts) -> None:
        """The stream is open, the film begins."""
        ...

    def token(self, token: Token, seen_us: int | None, played_us: int) -> None:
        """A token, the time of the newest frame it had seen, and how much of the film had been sent."""
        ...

    def event(self, event: Event, played_us: int) -> None:
        """Another event of the stream."""
        ...

    def summary(self, before: int, after: int, first_token_ms: float | None, played_us: int) -> None:
        """The end: tokens before and after the end of the film, and how long the first one took."""
        ...


class JsonFilmView:
    """One JSON object a line: tokens as {"reply", "text", "seen_us", "played_us"}, everything else with a "type"."""

    def waiting(self, what: str) -> None:
        """Goes to stderr."""
        print(what, file=sys.stderr, flush=True)

    def started(self, facts: FilmFacts) -> None:
        """{"type": "started"}."""
        self._line(type="started", **facts._asdict())

    def token(self, token: Token, seen_us: int | None, played_us: int) -> None:
        """A token's line has no "type"."""
        self._line(reply=token.reply, text=token.text, seen_us=seen_us, played_us=played_us)

    def event(self, event: Event, played_us: int) -> None:
        """The event's own fields, and `played_us`."""
        self._line(**msgspec.to_builtins(event), played_us=played_us)

    def summary(self, before: int, after: int, first_token_ms: float | None, played_us: int) -> None:
        """{"type": "summary"}."""
        self._line(
            type="summary",
            tokens_before_end=before,
            tokens_after_end=after,
            first_token_ms=first_token_ms,
            played_us=played_us,
        )

    def _line(self, **fields: Any) -> None:
        print(msgspec.json.encode(fields).decode(), flush=True)


class TextFilmView:
    """For people: a new block of words whenever the model has seen a newer frame, as wide as the terminal.

    Of a block that is longer than `ROWS` rows the rest is counted, not shown: a small model fills a screen in a second.
    """

    ROWS = 3

    def __init__(self) -> None:
        self._width = shutil.get_terminal_size().columns - 1
        self._seen_us: int | None = -1  # Of the block that is open; -1: none is.
        self._column = 0
        self._row = 0  # Rows of the block so far.
        self._fresh = True  # No word stands in the row yet.
        self._hidden = 0  # Tokens of the block that are not shown.

    def waiting(self, what: str) -> None:
        """A plain line."""
        print(what, flush=True)

    def started(self, facts: FilmFacts) -> None:
        """The header."""
        print(f"\nmodel   {facts.model} ({facts.family})")
        print(f"format  {facts.format}: {facts.why}")
        print(f"film    {facts.film}, {facts.length_us / 1e6:.1f} s, sent at its own pace\n")
        if not facts.live_trained:
            print("This model was not trained to speak while it watches: expect odd words, and look")
            print("at the times. They say which frame it had seen when it spoke.\n")
        print("film sent | newest frame seen | words")
        print("----------+-------------------+".ljust(min(self._width, 79), "-"), flush=True)

    def token(self, token: Token, seen_us: int | None, played_us: int) -> None:
        """A word, after the times that hold for it."""
        if seen_us != self._seen_us:
            self._end_block()
            seen = "nothing yet" if seen_us is None else f"{seen_us / 1e6:.2f} s"
            self._begin_row(f"{played_us / 1e6:7.2f} s", seen)
            self._seen_us = seen_us
        text = "".join(char if char.isprintable() else " " for char in token.text)
        if self._hidden or (self._column + len(text) > self._width and self._row == self.ROWS):
            self._hidden += 1
            return
        if self._column + len(text) > self._width:
            print()
            self._begin_row()
        if self._fresh:
            text = text.lstrip()
            self._fresh = not text
        print(text, end="", flush=True)
        self._column += len(text)

    def event(self, event: Event, played_us: int) -> None:
        """Only what a viewer wants to know."""
        match event:
            case ReplyStarted():
                self._note(played_us, "question asked, the reply begins")
            case ReplyDone():
                self._note(played_us, f"the reply has ended ({event.reason}) after {event.tokens} tokens")
            case Dropped():
                what = "samples of sound" if event.modality == "audio" else event.modality
                self._note(played_us, f"{event.count} {what} dropped ({event.reason})")
            case Error():
                self._note(played_us, f"error: {event.message}")
            case Closed():
                self._note(played_us, "stream closed")

    def summary(self, before: int, after: int, first_token_ms: float | None, played_us: int) -> None:
        """What was shown, in numbers."""
        first = "no token" if first_token_ms is None else f"first token {first_token_ms:.0f} ms after the question"
        print(f"\n{before} tokens while the film was running, {after} after it; {first}.", flush=True)

    def _note(self, played_us: int, text: str) -> None:
        self._end_block()
        print(f"{played_us / 1e6:7.2f} s | {text}", flush=True)

    def _begin_row(self, sent: str = "", seen: str = "") -> None:
        head = f"{sent:9} | {seen:>17} | "
        print(head, end="")
        self._column = len(head)
        self._row += 1
        self._fresh = True

    def _end_block(self) -> None:
        if self._seen_us == -1:
            return
        print()
        if self._hidden:
            self._begin_row()
            print(f"... and {self._hidden} tokens more")
        self._seen_us, self._row, self._hidden = -1, 0, 0
