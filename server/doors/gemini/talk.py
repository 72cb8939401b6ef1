"""The stream of one Gemini Live connection: whether it holds the history, and the commands that bring it to a reply.
In: entries, sound and the setup. Out: commands of the session.

What a user says and shows is appended to the stream as it comes. Turns of the model that a client brings, and what a
function has returned, only a prompt can hold: the next reply then begins a new stream with the whole history, whose
words the prefix cache may have.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from ....streams.item import AudioChunk
from ....streams.requests.request import Request
from ....streams.requests.turns import TurnDetection
from ... import commands as c
from .hearing import HeardActivity
from .history import KEPT_BYTES, GeminiEntry, GeminiHistory
from .setup import GeminiSetup
from .wire import POLICY, GeminiFault


class GeminiTalk:
    """The stream. `name`: as the session has it; None: it is not open. `listens`: what it listens for. `given`: how
    many entries the user has said and shown, but for speech that the stream has heard."""

    def __init__(self, setup: GeminiSetup, history: GeminiHistory, sound: HeardActivity) -> None:
        self._setup = setup
        self._history = history
        self._sound = sound
        self._numbers = itertools.count(1)
        self.given = 0
        self.name: str | None = None
        self.stale = False  # the stream does not hold the history
        self.listens: TurnDetection | None = None
        self._hears = False  # sound has come that has to be listened to

    @property
    def replies_by_itself(self) -> bool:
        """Whether the stream asks when speech has stopped."""
        return self.listens is not None and self.listens.respond

    def add(self, entry: GeminiEntry) -> list[c.Command]:
        """Something is said or shown: put it into the history, and into the stream if that takes it as it is."""
        self._history.add(entry)
        self.given += entry.role == "user"
        fits = entry.role == "user" and not (entry.rate and self._hears)
        if self.name is None:
            plain = fits and not self._setup.tools and all(one.role == "user" for one in self._history.entries)
            return [self._open(self._request()), *map(self._append, self._history.entries)] if plain else []
        self.stale |= not fits
        return [*self.listen()] if self.stale else [self._append(entry)]

    def ask(self) -> tuple[list[c.Command], list[str] | None]:
        """Begin a reply to the history; in a new stream, with the kinds of the media that come with its prompt."""
        entries = self._history.entries
        if not entries:
            raise GeminiFault("expected words or media before a turn is complete, got none")
        if self.name is not None and not self.stale and entries[-1].role == "user":
            return [c.AskQuestion(stream=self.name, ref="ask")], None
        if self._history.forgets:
            raise GeminiFault(
                f"the history has to be read again, and has more than {KEPT_BYTES} bytes of media: begin a new session",
                POLICY,
            )
        leave = [] if self.name is None else [c.CloseStream(stream=self.name)]
        opened = self._open(self._request(messages=self._history.messages(), tools=self._setup.tools), "ask")
        heard = [self._sounds(chunk) for chunk in self._sound.unheard()]
        return [*leave, opened, *self.listen(), *heard], self._history.media_kinds()

    def hear(self, sound: AudioChunk) -> list[c.Command]:
        """Append sound in which the stream listens for speech. Where only a prompt can hold the history, a stream
        listens that holds nothing else, and each turn that it hears begins another one."""
        self._hears = True
        commands: list[c.Command] = []
        if self.name is None:
            commands.append(self._open(self._request()))
            self.stale = bool(self._setup.tools or len(self._history))
        return [*commands, *self.listen(), self._sounds(sound)]

    def listen(self) -> list[c.Command]:
        """Let the stream listen for what is wanted. While it does not hold the history it does not reply by itself."""
        wanted = self._setup.detection if self._hears else None
        if wanted is not None:
            interrupts = self._setup.interrupts
            wanted = msgspec.structs.replace(wanted, respond=interrupts and not self.stale, interrupt=interrupts)
        if self.name is None or wanted == self.listens:
            return []
        self.listens = wanted
        return [c.Listen(stream=self.name, turn_detection=wanted, ref="listen")]

    def _request(self, **fields: Any) -> Request:
        setup = self._setup
        return Request(
            system=setup.system,
            format="turns",
            window=setup.window,
            params=setup.params,
            processor=setup.processor,
            adapter=setup.adapter,
            **fields,
        )

    def _open(self, request: Request, ref: Any = None) -> c.Command:
        self.name, self.stale, self.listens = f"talk {next(self._numbers)}", False, None
        return c.OpenStream(stream=self.name, request=request, ref=ref)

    def _append(self, entry: GeminiEntry) -> c.Command:
        assert self.name is not None
        return c.AppendItem(stream=self.name, item=entry.item(), size=len(entry.media or entry.text), ref=entry.kind)

    def _sounds(self, sound: AudioChunk) -> c.Command:
        assert self.name is not None
        return c.AppendItem(stream=self.name, item=sound, size=len(sound.data), ref="audio")
