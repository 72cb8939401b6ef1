"""Narration against the truth. In: the events of a stream, and a scene. Out: sentences with what had been seen when
they began, and whether each tells something that happened, in time.

It does not know how a film was sent.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock import Appended, Event, Token

from .exam import Told, events
from .world import Scene

UNIT = 1.0  # seconds of media
_SLACK = 0.1  # a film's times are exact to about a frame


class Sentence(NamedTuple):
    """A sentence, the reply it belongs to, and the media time in seconds that had been seen when it began."""

    text: str
    reply: int
    seen: float


class Listener:
    """Cuts the tokens of a stream into sentences."""

    def __init__(self) -> None:
        self.seen = 0.0
        self._words = ""
        self._reply = 0
        self._began = 0.0

    def hear(self, event: Event) -> Sentence | None:
        """Take the next event of the stream; a sentence where it ends one."""
        if isinstance(event, Appended) and event.stop_us is not None:
            self.seen = max(self.seen, event.stop_us / 1e6)
        if not isinstance(event, Token):
            return None
        if event.seen is not None and event.seen.stop_us is not None:
            self.seen = max(self.seen, event.seen.stop_us / 1e6)
        if event.reply != self._reply or not self._words:
            self._words, self._reply, self._began = "", event.reply, self.seen
        self._words += event.text
        if not self._words.endswith("."):
            return None
        sentence = Sentence(self._words.strip(), self._reply, self._began)
        self._words = ""
        return sentence


class Marker:
    """Ticks off what happens in a scene as it is told."""

    def __init__(self, scene: Scene) -> None:
        self.waiting = events(scene, True)
        self.in_time: list[tuple[Told, bool]] = []
        self.invented: list[Sentence] = []

    def mark(self, sentence: Sentence) -> Told | None:
        """What the sentence tells; None where nothing of the kind has happened. In time is up to the end of the unit
        after the event's own."""
        for number, event in enumerate(self.waiting):
            if event.sentence == sentence.text and event.time - _SLACK <= sentence.seen:
                del self.waiting[number]
                last = (event.time // UNIT + 2) * UNIT + _SLACK
                self.in_time.append((event, sentence.seen <= last))
                return event
        self.invented.append(sentence)
        return None

    def finish(self, until: float) -> list[tuple[Told, bool]]:
        """Everything that happened before `until`, each with whether it was told in time."""
        missed = [(event, False) for event in self.waiting]
        return [(event, told) for event, told in (*self.in_time, *missed) if event.time < until]
