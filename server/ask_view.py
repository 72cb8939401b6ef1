"""How `penstock ask` shows itself: the answer on stdout, everything else on stderr; or one JSON object a line.

In come media times and events; out go words. Knows no sockets, no devices, no models.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ..streams.event import Appended, Credit, Dropped, Event, Held, ReplyDone, ReplyStarted, Token

_REDRAW_SECONDS = 0.1
_ENDS = (".", "!", "?")
_UNKNOWN = "I do not know."
_HINT = (
    "Brook knows coloured shapes that move, beeps and a few spoken words, and nothing else. Name another model with "
    "--model, for example Qwen/Qwen2.5-VL-3B-Instruct, or give it to penstock serve."
)


class View(Protocol):
    """What both views show. Times are media time in microseconds."""

    def waiting(self, what: str) -> None:
        """Something that takes a while has begun."""
        ...

    def started(self, model: str, format: str, why: str) -> None:
        """The stream is open."""
        ...

    def sent(self, stop_us: int | None) -> None:
        """A piece of media has been sent, up to `stop_us` where that is known."""
        ...

    def event(self, event: Event) -> None:
        """An event of the stream."""
        ...

    def close(self) -> None:
        """The end, good or bad; leaves the cursor at the start of a line."""
        ...


class JsonView:
    """One JSON object a line: "started", then the events of the stream as on the wire, without those of flow."""

    def waiting(self, what: str) -> None:
        """Nothing."""

    def started(self, model: str, format: str, why: str) -> None:
        """{"type": "started"}."""
        self._line({"type": "started", "model": model, "format": format, "why": why})

    def sent(self, stop_us: int | None) -> None:
        """Nothing: `appended` tells what has arrived."""

    def event(self, event: Event) -> None:
        """The event's own fields."""
        if not isinstance(event, Credit | Held):
            self._line(event)

    def close(self) -> None:
        """Nothing."""

    def _line(self, value: Any) -> None:
        print(msgspec.json.encode(value).decode(), flush=True)


class _Damage:
    """What of one modality was lost, and within which media times."""

    def __init__(self) -> None:
        self._count = 0
        self._times_us: list[int] = []  # The first and the last.

    def add(self, event: Dropped) -> None:
        """Take one loss."""
        self._count += event.count
        times_us = [*self._times_us, *(time for time in (event.start_us, event.stop_us) if time is not None)]
        self._times_us = [min(times_us), max(times_us)] if times_us else []

    def told(self, modality: str) -> str:
        """In words."""
        lost = f"{self._count} " + ("samples of sound" if modality == "audio" else f"packets of {modality}")
        if not self._times_us:
            return lost
        start, stop = self._times_us
        return f"{lost} from {start / 1e6:.1f} s to {stop / 1e6:.1f} s"


class TextView:
    """For people. On a terminal a line on stderr counts what goes in and comes out, except while words are printed
    there; `live` begins each sentence on a line of its own, with the media time up to which the model had seen.
    """

    def __init__(self, live: bool) -> None:
        self._live = live
        self._counts = sys.stderr.isatty()
        self._shared = sys.stdout.isatty()  # Words and counts would stand in one line.
        self._drawn_at: float | None = None
        self._sent_us = 0
        self._rows = 0
        self._tokens = 0
        self._first_at = self._last_at = 0.0
        self._speaking = False
        self._brook = False
        self._newest = ""  # The end of what was said, as long as `_UNKNOWN`.
        self._unknown = False  # It was said.
        self._damaged: dict[str, _Damage] = {}  # By modality.
        self._since_us: int | None = None  # What was before this had left when the newest reply ended.
        self._fresh = True  # The cursor is at the start of a line of stdout.

    def waiting(self, what: str) -> None:
        """Only on a terminal."""
        self._draw(what)

    def started(self, model: str, format: str, why: str) -> None:
        """Nothing yet: the answer stands alone."""
        self._brook = Path(model).name == "brook"

    def sent(self, stop_us: int | None) -> None:
        """Counts."""
        self._sent_us = max(self._sent_us, stop_us or 0)
        self._count()

    def event(self, event: Event) -> None:
        """Words, and counts."""
        match event:
            case Appended():
                self._rows += event.rows
            case ReplyStarted():
                self._speaking = True
                if self._shared:
                    self._clear()
            case Token():
                self._last_at = time.monotonic()
                self._first_at = self._first_at or self._last_at
                self._tokens += 1
                self._newest += event.text
                self._unknown = self._unknown or _UNKNOWN in self._newest
                self._newest = self._newest[-len(_UNKNOWN) :]
                self._word(event)
            case Dropped(reason="damaged"):
                self._damaged.setdefault(event.modality, _Damage()).add(event)
            case ReplyDone():
                self._speaking, self._since_us = False, event.since_us
                print(event.text, end="" if self._fresh and not event.text else "\n", flush=True)
                self._fresh = True
        self._count()

    def close(self) -> None:
        """The counts stay, as a last line; after them stand what was damaged, what had left the window, and what Brook
        knows, where it did not know."""
        if not self._fresh:
            print(flush=True)
        if self._counts and self._rows:
            self._draw(self._line())
            print(file=sys.stderr, flush=True)
        else:
            self._clear()
        if self._damaged:
            lost = "; ".join(damage.told(modality) for modality, damage in self._damaged.items())
            print(f"penstock: the media is damaged, and the model did not get all of it: {lost}", file=sys.stderr)
        if self._since_us is not None and not self._live:
            gone = f"media before {self._since_us / 1e6:.1f} s had left the stream's window when the answer ended"
            print(f"penstock: {gone}", file=sys.stderr, flush=True)
        if self._brook and self._unknown:
            print(f"penstock: {_HINT}", file=sys.stderr, flush=True)

    def _word(self, token: Token) -> None:
        text = token.text.lstrip() if self._live and self._fresh else token.text
        if not text:
            return
        seen_us = None if token.seen is None else token.seen.stop_us
        if self._live and self._fresh and seen_us is not None:
            print(f"[{seen_us / 1e6:5.1f} s] ", end="")
        ends = self._live and text.endswith(_ENDS)
        print(text, end="\n" if ends else "", flush=True)
        self._fresh = ends or text.endswith("\n")

    def _count(self) -> None:
        late = self._drawn_at is None or time.monotonic() - self._drawn_at >= _REDRAW_SECONDS
        if late and not (self._shared and (self._speaking or self._live)):
            self._draw(self._line())

    def _line(self) -> str:
        line = f"{self._sent_us / 1e6:.1f} s of media sent, {self._rows} rows"
        seconds = self._last_at - self._first_at
        return line + (f", {(self._tokens - 1) / seconds:.1f} tokens/s" if seconds > 0 else "")

    def _draw(self, line: str) -> None:
        if self._counts:
            self._clear()
            print(line, end="", file=sys.stderr, flush=True)
            self._drawn_at = time.monotonic()

    def _clear(self) -> None:
        if self._drawn_at is not None:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn_at = None
