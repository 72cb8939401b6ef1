"""The conversation of one Gemini Live connection: whose turn it is. In: entries, sound and activities of the client,
events of the session. Out: messages, and commands.

One turn runs at a time. What the client completes meanwhile is answered when the turn before has ended; what interrupts
ends it sooner. It knows neither how messages are read nor sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ....streams.event import Dropped, Event, ReplyDone, ReplyStarted, SpeechStarted, SpeechStopped, Token
from ... import commands as c
from .hearing import HeardActivity
from .history import GeminiEntry, GeminiHistory
from .inputs import FunctionReturned
from .setup import GeminiSetup
from .talk import GeminiTalk
from .turn import GeminiTurn, interrupted, turn_complete
from .usage import UsageMetadata
from .wire import FAILED, GeminiFault, encode

ToldGemini = bytes | c.Command


class GeminiConversation:
    """Turns of the user and of the model."""

    def __init__(self, setup: GeminiSetup) -> None:
        self._setup = setup
        self._history = GeminiHistory()
        self._sound = HeardActivity()
        self.talk = GeminiTalk(setup, self._history, self._sound)
        self._usage = UsageMetadata([])
        self._brings_history = setup.history_first
        self._active = False  # an activity of the client goes on
        self._before = 0  # how much the user had said and shown when it began
        self._asked: GeminiEntry | None = None  # what a reply will write that was asked for
        self._own: dict[int, GeminiEntry] = {}  # the same, of replies that the stream asks for, by their questions
        self._turn: GeminiTurn | None = None
        self._wants = False  # a reply is wanted when nothing runs any more
        self._calling: GeminiTurn | None = None  # the turn whose functions have not returned
        self._pending: dict[str, str | None] = {}  # its calls by id, and what they have returned
        self._cancelled: set[str] = set()
        self.ends = 0  # how often a turn, or its part up to calls, was told to its end

    @property
    def _speaks(self) -> bool:
        return self._asked is not None or self._turn is not None or bool(self._own)

    # ---- from the client ----
    def say(self, entries: Iterable[GeminiEntry], complete: bool) -> Iterator[ToldGemini]:
        """Turns that a client brings. They interrupt, unless they are its history."""
        if self._brings_history:
            self._brings_history = not complete
            complete = False
        else:
            yield from self._interrupt()
        for entry in entries:
            yield from self.talk.add(entry)
        if complete:
            yield from self._ask()

    def write(self, text: str) -> Iterator[ToldGemini]:
        """Words in real time: a turn of their own, or a part of the activity where the client tells of these."""
        by_itself = self._setup.detection is not None
        if by_itself and self._setup.interrupts:
            yield from self._interrupt()
        yield from self.talk.add(GeminiEntry("user", text))
        if by_itself:
            yield from self._ask()

    def show(self, picture: GeminiEntry) -> Iterator[ToldGemini]:
        """A picture in real time."""
        yield from self.talk.add(picture)

    def hear(self, sound: GeminiEntry) -> Iterator[ToldGemini]:
        """Sound in real time."""
        assert sound.media is not None
        if self._setup.detection is not None:
            yield from self.talk.hear(self._sound.append(sound.media, sound.rate))
        elif self._active or self._setup.all_sound:
            yield from self.talk.add(sound)

    def end_sound(self) -> Iterator[ToldGemini]:
        """The client sends no more sound for a while: it is silent."""
        detection = self._setup.detection
        if detection is None:
            raise GeminiFault("realtimeInput.audioStreamEnd: expected it with automaticActivityDetection only")
        if self._sound.now_us:
            rate = self._sound.form.rate
            silence = bytes((detection.silence_ms + 200) * rate // 1000 * 2)
            yield from self.talk.hear(self._sound.append(silence, rate))

    def start_activity(self) -> Iterator[ToldGemini]:
        self._check_activity("activityStart", False)
        self._active, self._before = True, self.talk.given
        if self._setup.interrupts:
            yield from self._interrupt()

    def end_activity(self) -> Iterator[ToldGemini]:
        self._check_activity("activityEnd", True)
        self._active = False
        if self.talk.given > self._before:
            yield from self._ask()
        else:
            yield encode(serverContent={"waitingForInput": True})

    def _check_activity(self, name: str, active: bool) -> None:
        if self._setup.detection is not None:
            raise GeminiFault(
                f"realtimeInput.{name}: expected automaticActivityDetection to be disabled, it is in force"
            )
        if self._active != active:
            goes_on = "an activity that goes on" if active else "none that goes on"
            raise GeminiFault(f"realtimeInput.{name}: expected {goes_on}")

    def returned(self, responses: Iterable[FunctionReturned]) -> Iterator[ToldGemini]:
        """What functions have returned. When all of a turn have, it goes on. Of a cancelled call nobody wants it."""
        for response in responses:
            if response.id in self._pending:
                self._pending[response.id] = response.text
            elif response.id not in self._cancelled:
                raise GeminiFault(f"toolResponse: expected the id of a call that waits, got {response.id!r:.40}")
        if self._calling is None or None in self._pending.values():
            return
        place = self._history.entries.index(self._calling.entry) + 1
        for id, text in reversed(self._pending.items()):
            entry = GeminiEntry("tool", text or "")
            entry.call_id = id
            self._history.add(entry, place)
        self._calling, self._pending = None, {}
        self.talk.stale = True
        yield from self._ask()

    # ---- whose turn it is ----
    def _ask(self) -> Iterator[ToldGemini]:
        """Begin a turn of the model, or do so when nothing runs any more."""
        self._wants = self._speaks or self._calling is not None
        if self._wants:
            return
        commands, prompt = self.talk.ask()
        if prompt is not None:
            self._usage = UsageMetadata(prompt)
        self._asked = self._place()
        yield from commands

    def _place(self) -> GeminiEntry:
        """Where in the history a reply will stand."""
        entry = GeminiEntry("model")
        entry.running = True
        self._history.add(entry)
        return entry

    def _interrupt(self) -> Iterator[ToldGemini]:
        """End the turn that runs; one that waits for functions does not go on."""
        yield from self._cancel_calls()
        if self._speaks and self.talk.name is not None:
            yield c.InterruptReply(stream=self.talk.name)

    def _cancel_calls(self) -> Iterator[bytes]:
        if self._calling is None:
            return
        entry, raw = self._calling.entry, self._calling.raw
        entry.text, entry.calls = raw, ()  # as the cache has it
        yield encode(toolCallCancellation={"ids": [*self._pending]})
        yield interrupted()
        yield turn_complete()
        self.ends += 1
        self._cancelled |= self._pending.keys()
        self._calling, self._pending = None, {}

    # ---- from the stream ----
    def event(self, event: Event) -> Iterator[ToldGemini]:
        """An event of the stream."""
        self._usage.note(event)
        match event:
            case ReplyStarted(seq=seq):
                entry = self._own.pop(seq, None)
                if entry is None:
                    entry, self._asked = self._asked, None
                self._turn = GeminiTurn(entry or self._place(), self._setup.functions)
            case Token() if self._turn is not None:
                yield from self._turn.token(event)
            case ReplyDone() if self._turn is not None:
                yield from self._done(self._turn, event)
            case Dropped(reason="silence", stop_us=int(until_us)):
                self._sound.silent(until_us)
            case SpeechStarted(at_us=at_us):
                self._sound.started(at_us)
                if self._setup.interrupts:
                    yield from self._cancel_calls()
            case SpeechStopped(at_us=at_us, seq=seq):
                for entry in self._sound.stopped(at_us):
                    self._history.add(entry)
                if self.talk.replies_by_itself:
                    self._own[seq] = self._place()
                else:
                    yield from self._ask()

    def _done(self, turn: GeminiTurn, done: ReplyDone) -> Iterator[ToldGemini]:
        if done.reason == "error":
            raise GeminiFault("the reply has failed; the server's log says more", FAILED)
        yield from turn.done(done, self._usage.of(done))
        self.ends += 1
        turn.entry.running = False
        self._turn = None
        if turn.calls:
            self._calling, self._pending = turn, {call.id: None for call in turn.calls}
        if self._wants:
            yield from self._ask()

    def not_asked(self) -> None:
        """A reply that was asked for will not come, since the server goes down."""
        self._asked = None
