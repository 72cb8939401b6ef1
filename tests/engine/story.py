"""What a stream's KV must hold, told from outside: from what was offered and after which tokens it was spliced.

In: the calls of a test in their order, the sampled ids, where replies ended. Out: the reference's pieces. It is a
second telling of the formats and shares no code with the engine.

    outside a reply         media and text go into the open user turn, which the first of them opens; spans of one kind
                            with nothing in between are one piece; a question closes the turn and opens the reply
    in a reply, `turns`     everything waits until the reply has ended
    in a reply, `live`      each span is a piece of its own behind the newest token, of which there is at least one
                            since the piece before, or a silence; text is a user turn of its own, behind which the
                            reply goes on; a question ends the reply, whose ids all stay
    in a reply, `interrupt` text and questions cut the reply; media waits
    in a reply, `per-frame` everything waits until the model has given its silence token; then one thing goes in as in
                            `live`, and the reply goes on
    in a reply, `units`     the same, but the reply also rests after so many tokens since the last splice; clips that
                            end in the same second go in together, once something of a later second or words have come
    the end of a reply      the closing ids; where it is cut, tokens behind the cut are gone, and what was spliced
                            behind it comes again, before the closing ids
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tests.reference import pieces as p


@dataclass(eq=False)
class Run:
    """An unbroken run of sound, as far as it has come."""

    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(eq=False)
class Film:
    """A video with its sound."""

    frames: list[np.ndarray] = field(default_factory=list)
    sound: Run = field(default_factory=Run)


@dataclass(frozen=True, eq=False)
class Later:
    """Something that waits: how it is told once no reply runs, how during a reply, its second of media, and whether it
    is words."""

    outside: Callable[[], None]
    inside: Callable[[], None]
    unit: int | None = None
    words: bool = False


@dataclass(frozen=True, eq=False)
class Still:
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class Clip:
    """Pairs of frames that follow each other, with their times in seconds."""

    frames: tuple[np.ndarray, ...]
    times: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Sound:
    run: Run
    first: int
    count: int


@dataclass(frozen=True, eq=False)
class Units:
    film: Film
    first: int
    count: int


Media = Still | Clip | Sound | Units
Part = p.Piece | Media


def joined(earlier: Part, later: Media) -> Media | None:
    """Two spans as one piece, where the later continues the earlier."""
    match earlier, later:
        case Clip(), Clip() if earlier.frames[0].shape == later.frames[0].shape:
            return Clip(earlier.frames + later.frames, earlier.times + later.times)
        case Sound(), Sound() if earlier.run is later.run:
            return Sound(earlier.run, earlier.first, earlier.count + later.count)
        case Units(), Units():
            return Units(earlier.film, earlier.first, earlier.count + later.count)
    return None


def piece(part: Part) -> p.Piece:
    match part:
        case Still(pixels):
            return p.ImagePiece(pixels)
        case Clip(frames, times):
            return p.VideoPiece(np.stack(frames), times)
        case Sound(run, first, count):
            return p.AudioPiece(run.samples, first, count)
        case Units(film, first, count):
            return p.AvPiece(np.stack(film.frames), film.sound.samples, first, count)
    return part


class Story:
    """One stream so far."""

    def __init__(self, format: str, system: str | None, unit_tokens: int = 20) -> None:
        self.format = format
        self.unit_tokens = unit_tokens
        self.resting = self.over = False
        self.since = 0  # tokens since the last splice
        self.parts: list[Part] = [p.System(system)]
        self.state = "closed"
        self.reply = 0  # the number of the newest reply
        self.begin = 0  # first part of the running reply
        self.places: list[int] = []  # part of each of its tokens
        self.splices: list[tuple[int, Media | str]] = []
        self.waiting: list[Later] = []

    def copy(self) -> Story:
        """The same story, to be told on; only while nothing waits."""
        assert not self.waiting
        twin = Story(self.format, None)
        twin.__dict__.update(self.__dict__)
        twin.parts, twin.places, twin.splices = list(self.parts), list(self.places), list(self.splices)
        twin.waiting = []
        return twin

    @property
    def replying(self) -> bool:
        return self.state == "assistant"

    @property
    def goes_on(self) -> bool:
        """Whether the last part is media outside a reply: its closing id waits for what comes next."""
        return self.state == "user" and isinstance(self.parts[-1], Still | Clip | Sound | Units)

    def media(self, what: Media) -> None:
        unit = None
        if self.format == "units" and isinstance(what, Clip):
            unit = max(0, math.ceil(what.times[-1]) - 1)
        later = Later(lambda: self.media(what), lambda: self._take_media(what), unit)
        if not self._waits(self.format != "live" or not self._has_said(), later):
            self._take_media(what)

    def text(self, words: str) -> None:
        if self.replying and self.format == "interrupt":
            self.cut(len(self.places))
        later = Later(lambda: self.text(words), lambda: self._take_text(words), words=True)
        if not self._waits(self.format not in ("live", "interrupt"), later):
            self._take_text(words)

    def ask(self, words: str) -> None:
        if self.replying and self.format == "interrupt":
            self.cut(len(self.places))
        later = Later(lambda: self.ask(words), lambda: self._take_question(words), words=True)
        if not self._waits(self.format not in ("live", "interrupt"), later):
            self._take_question(words)

    def finish(self) -> None:
        """No more media will come."""
        later = Later(self.finish, self._finish, words=True)
        if not self._waits(self.format not in ("live", "interrupt"), later):
            self._finish()

    def drawn(self, silence: bool) -> None:
        """The model was asked for a token and gave its silence, or another."""
        if self.format in ("live", "per-frame", "units") and self.replying and not self.over:
            self.since += 1
            if silence or (self.format == "units" and self.since == self.unit_tokens):
                self.resting = True

    def go_on(self) -> None:
        """Where the reply rests, what waits goes in as far as it may; in `live` also where it has said something."""
        while self.format == "live" and self.replying and self.waiting:
            if not self.waiting[0].words and not self._has_said():
                return
            self.waiting.pop(0).inside()
        while self.resting and self.replying and self.waiting:
            first = self.waiting[0]
            if first.unit is None:
                self.waiting.pop(0)
                self.resting = False
                first.inside()
                continue
            if not any(other.unit is None or other.unit > first.unit for other in self.waiting):
                return
            self.resting = False
            while self.waiting and self.waiting[0].unit is not None and self.waiting[0].unit <= first.unit:
                self.waiting.pop(0).inside()

    def token(self, id: int) -> None:
        assert self.replying
        self.places.append(len(self.parts))
        self.parts.append(p.Tokens([id]))

    def end(self) -> None:
        """The running reply has ended with all its tokens."""
        self.parts.append(p.AssistantEnd())
        self.state = "closed"
        self.resting = False
        waiting, self.waiting = self.waiting, []
        for later in waiting:
            later.outside()

    def cut(self, keep: int) -> None:
        """The running reply keeps its first `keep` tokens and ends."""
        again = [what for after, what in self.splices if after >= keep]
        del self.parts[self.places[keep - 1] + 1 if keep else self.begin :]
        for what in again:
            self._lay_text(what) if isinstance(what, str) else self._lay_media(what)
        self.end()

    def told(self) -> list[p.Piece]:
        """All of it as the reference's pieces."""
        return [piece(part) for part in self.parts]

    def tokens(self) -> list[int]:
        """The places of all sampled tokens among the parts."""
        return [place for place, part in enumerate(self.parts) if isinstance(part, p.Tokens)]

    def _has_said(self) -> bool:
        return self.resting or self.since > 0

    def _waits(self, in_reply: bool, later: Later) -> bool:
        if self.waiting or (self.replying and in_reply):
            self.waiting.append(later)
            self.go_on()
            return True
        return False

    def _take_media(self, what: Media) -> None:
        if self.replying:
            self.splices.append((len(self.places), what))
            self.since, self.resting = 0, False
        self._lay_media(what)

    def _take_text(self, words: str) -> None:
        if self.replying:
            self.splices.append((len(self.places), words))
            self.since, self.resting = 0, False
        self._lay_text(words)

    def _take_question(self, words: str) -> None:
        self._open_user()
        self.parts += [*([p.Text(words)] if words else []), p.UserEnd(), p.AssistantStart()]
        self.state, self.reply = "assistant", self.reply + 1
        self.begin, self.places, self.splices, self.since = len(self.parts), [], [], 0
        self.resting = False

    def _finish(self) -> None:
        self.over = True

    def _open_user(self) -> None:
        if self.replying:
            self.parts.append(p.AssistantEnd())
        if self.state != "user":
            self.parts.append(p.UserStart())
            self.state = "user"

    def _lay_media(self, what: Media) -> None:
        if not self.replying:
            self._open_user()
            one = joined(self.parts[-1], what)
            if one is not None:
                self.parts[-1] = one
                return
        self.parts.append(what)

    def _lay_text(self, words: str) -> None:
        replying = self.replying
        self._open_user()
        self.parts.append(p.Text(words))
        if replying:
            self.parts += [p.UserEnd(), p.AssistantStart()]
            self.state = "assistant"
