"""Speech in a Realtime conversation: the sound that comes in, what is said in it as items, and the responses to that.

In: sound, and what the stream of the conversation hears. Out: events of the server and commands. It does not know how
messages are written.
"""

from __future__ import annotations

from collections.abc import Iterator

from ....streams.event import SpeechStarted, SpeechStopped
from ....streams.requests.turns import TurnDetection
from ..heard import SoundClock
from .hearing import SoundBuffer
from .items import RealtimeConversation, RealtimeItem
from .replies import Responses, Told
from .settings import RealtimeSettings
from .talk import RealtimeTalk
from .turns import HeardSound, detection_of
from .wire import Fault, ResponseSaid, encode, encode_error


class RealtimeSpeech:
    """The input audio buffer of one conversation. With turn detection its sound goes to the stream as it comes; else it
    waits for a commit."""

    def __init__(
        self,
        conversation: RealtimeConversation,
        settings: RealtimeSettings,
        talk: RealtimeTalk,
        replies: Responses,
    ) -> None:
        self._conversation = conversation
        self._settings = settings
        self._talk = talk
        self._replies = replies
        clock = SoundClock()
        self._buffer = SoundBuffer(clock)
        self._heard = HeardSound(clock)
        self._moved_us = 0  # up to here another stream was listening
        self._owed = False  # what was said has yet to be answered

    @property
    def speaks(self) -> str | None:
        """The id of the item that what is being said becomes."""
        return self._heard.speaks

    # ---- from the client ----
    def changed(self) -> list[Told]:
        """The settings are others: what was held goes to the stream, where turn detection begins."""
        if self._detection is not None and (held := self._buffer.take()) is not None:
            chunk = self._heard.take(held, self._detection)
            self._talk.detection = self._detection
            return [*self._talk.hear(chunk)]
        if self._talk.detection is not None or self._detection is None:
            self._talk.detection = self._detection
        return [*self._talk.listen()]

    def append(self, data: bytes, event_id: str | None) -> list[Told]:
        """More sound."""
        if self._settings.turn_detection is None:
            self._buffer.append(data, self._settings.sound)
            return []
        chunk = self._heard.append(data, self._settings.sound, self._detection)
        if not data:
            return []
        self._talk.detection = self._detection
        return [*self._talk.hear(chunk, event_id)]

    def commit(self) -> RealtimeItem | list[Told]:
        """What is held, as an item that is not in the conversation yet; with turn detection, what was said up to here
        is one, and what follows belongs to another. Fault where there is nothing."""
        if self._settings.turn_detection is None:
            return self._buffer.commit()
        now_us = self._heard.now_us
        told = self._was_said(now_us)
        id = self._heard.started(now_us)
        return [*told, encode("input_audio_buffer.speech_started", audio_start_ms=now_us // 1000, item_id=id)]

    def clear(self) -> list[Told]:
        """Take back what is no item. The stream may hold some of it, so the next response is in another one."""
        self._talk.dirty |= self._heard.speaks is not None
        self._heard.clear()
        self._buffer.clear()
        return [encode("input_audio_buffer.cleared"), *self._talk.listen()]

    def respond(self, said: ResponseSaid) -> list[Told]:
        """Begin a response. Where that is in a new stream, it is this one that listens from now on. Fault where it
        cannot be."""
        before = self._talk.name
        told = [*self._replies.create(said)]
        if self._talk.name == before or self._talk.detection is None:
            return [*told, *self._talk.listen()]
        self._moved_us = self._heard.now_us
        told += self._talk.listen()
        for piece in self._heard.unheard():
            chunk = piece.form.chunk(piece.data, piece.start_us)
            told.append(self._talk.append(chunk, len(piece.data), ("sound", None)))
        return told

    # ---- from the stream of the conversation ----
    def event(self, event: SpeechStarted | SpeechStopped) -> Iterator[Told]:
        """It hears that somebody begins or ends to speak, or that nobody has spoken for long."""
        if isinstance(event, SpeechStarted):
            yield from self._started(event)
            return
        at_us = event.at_us
        if self._heard.speaks is not None:
            at_us = max(at_us, self._heard.from_us)
            yield self._stopped(at_us)
        elif event.reason == "idle":
            yield self._timed_out(at_us)
        else:
            return
        if at_us <= self._heard.from_us:
            self._heard.never_mind(at_us)
            return
        yield from self._was_said(at_us)
        wanted = self._settings.turn_detection
        self._owed = wanted is not None and wanted["create_response"] and not self._talk.replies_by_itself
        yield from self.answer()

    def answer(self) -> Iterator[Told]:
        """Begin the response to what was said, if nothing else answers it and no other one runs."""
        if not self._owed or self._replies.active is not None:
            return
        self._owed = False
        try:
            yield from self.respond(ResponseSaid())
        except Fault as fault:
            yield encode_error(fault.message, fault.code, fault.param)

    def silent(self, until_us: int | None) -> None:
        """Nobody spoke up to here."""
        self._heard.silent(until_us or 0)

    def lost(self) -> Iterator[Told]:
        """The stream has ended: what was being said is an item, as far as it came."""
        if self._heard.speaks is None:
            return
        now_us = self._heard.now_us
        yield self._stopped(now_us)
        if now_us > self._heard.from_us:
            yield from self._was_said(now_us, heard=False)
        else:
            self._heard.never_mind(now_us)

    # ---- inside ----
    @property
    def _detection(self) -> TurnDetection | None:
        return detection_of(self._settings.turn_detection, self._settings.model_decides)

    def _started(self, event: SpeechStarted) -> Iterator[Told]:
        going_on = self._heard.speaks if event.at_us <= self._moved_us else None
        if going_on is None and self._heard.speaks is not None:  # to the stream that listens now it was no speech
            yield self._stopped(self._moved_us)
        if event.at_us < self._heard.cleared_us:
            self._talk.dirty = True
            yield from self._talk.listen()
        id = self._heard.started(event.at_us, going_on)
        if self._detection is not None and self._detection.interrupt:
            yield from self._replies.cut_aside()
        if going_on is None:
            at_ms = self._heard.from_us // 1000
            yield encode("input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=id)

    def _stopped(self, at_us: int) -> bytes:
        at_ms = max(0, at_us) // 1000
        return encode("input_audio_buffer.speech_stopped", audio_end_ms=at_ms, item_id=self._heard.speaks)

    def _timed_out(self, at_us: int) -> bytes:
        """Nobody has spoken for long: the newest of the silence is an item, as the stream has it."""
        detection = self._detection or TurnDetection()
        id = self._heard.started(max(0, at_us - detection.idle_sound_ms * 1000))
        start_ms = max(0, at_us // 1000 - (detection.idle_ms or 0))
        span = {"audio_start_ms": start_ms, "audio_end_ms": at_us // 1000}
        return encode("input_audio_buffer.timeout_triggered", **span, item_id=id)

    def _was_said(self, until_us: int, heard: bool = True) -> list[Told]:
        """What was said up to here is an item. `heard`: the stream has it."""
        item, before = self._heard.stopped(until_us), self._conversation.last_id
        self._conversation.add(item)
        if heard:
            self._talk.heard(item)
        shown = item.shown()
        return [
            encode("input_audio_buffer.committed", item_id=item.id, previous_item_id=before),
            encode("conversation.item.added", item=shown, previous_item_id=before),
            encode("conversation.item.done", item=shown, previous_item_id=before),
        ]
