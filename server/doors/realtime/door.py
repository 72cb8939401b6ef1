"""The door `/v1/realtime`: what a client says, to commands of the session; the session's answers, to the server's
events. It knows neither sockets nor the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ....streams.event import Appended, Closed, Error, ReplyStarted, SpeechStarted, SpeechStopped
from ... import commands as c
from ...config import ServerConfig
from . import wire
from .hearing import SoundBuffer
from .items import RealtimeConversation, RealtimeItem, item_of
from .replies import Responses, Told
from .settings import RealtimeSettings
from .talk import RealtimeTalk
from .transcribing import TranscribingDoor
from .turns import HeardSound, detection_of
from .wire import Fault, encode, encode_error, new_id, openai_code

if TYPE_CHECKING:
    from ....actors.info import EngineInfo


def realtime_door(info: EngineInfo, config: ServerConfig, query: Mapping[str, str]) -> RealtimeDoor | TranscribingDoor:
    """The door for a client with this query: a conversation, or words alone where the model can be asked for them."""
    if query.get("intent") == "transcription" and "audio" in info.modalities and info.transcription is not None:
        return TranscribingDoor(info, info.transcription)
    return RealtimeDoor(info, config, query)


class RealtimeDoor:
    """One Realtime session. A client that names another model is served by the one that is there, and is told so."""

    subprotocol = "realtime"

    def __init__(self, info: EngineInfo, config: ServerConfig, query: Mapping[str, str] | None = None) -> None:
        self._transcribes = (query or {}).get("intent") == "transcription"
        self._settings = RealtimeSettings(new_id("sess"), info)
        self._conversation = RealtimeConversation()
        self._talk = RealtimeTalk(self._conversation, self._settings)
        self._replies = Responses(self._conversation, self._settings, self._talk)
        self._buffer = SoundBuffer()
        self._heard = HeardSound()
        self._event_ids: dict[str, str | None] = {}  # of what created an item, while its media may yet be refused
        self._inputs: dict[tuple[str, int], str] = {}  # by stream and number of the input: the item

    def greet(self) -> Iterator[bytes]:
        """`session.created`."""
        yield encode("session.created", session=self._settings.config)
        if self._transcribes:
            yield encode_error(
                "intent: this model does not say how it is asked for words: expected a conversation, got transcription",
                "invalid_value",
                "intent",
            )

    # ---- from the client ----
    def hear(self, message: str | bytes) -> Iterable[Told]:
        """The answer to an event of the client, and commands. What cannot be done is answered by an `error`, and then
        nothing has changed."""
        try:
            said = wire.decode(message)
        except Fault as fault:
            return [_error(fault, wire.event_id_of(message))]
        try:
            return list(self._follow(said))
        except Fault as fault:
            return [_error(fault, said.event_id)]

    def _follow(self, said: wire.ClientEvent) -> Iterable[Told]:
        match said:
            case wire.UpdateSession(session=session):
                self._settings.update(session)
                detection = detection_of(self._settings.turn_detection, self._settings.model_decides)
                self._talk.detection = detection if self._heard.now_us else None
                return [encode("session.updated", session=self._settings.config), *self._talk.listen()]
            case wire.AppendSound(audio=audio):
                return self._appended(audio)
            case wire.CommitSound(event_id=event_id):
                return self._committed(event_id)
            case wire.ClearSound():
                self._talk.dirty |= self._heard.speaks is not None
                self._heard.clear()
                self._buffer.clear()
                return [encode("input_audio_buffer.cleared"), *self._talk.listen()]
            case wire.CreateItem(item=described, previous_item_id=after, event_id=event_id):
                return self._add(item_of(described, self._settings.sound), after, event_id)
            case wire.RetrieveItem(item_id=id):
                return [self._retrieved(id)]
            case wire.DeleteItem(item_id=id):
                return [self._deleted(id), *self._talk.listen()]
            case wire.TruncateItem(item_id=id):
                self._conversation.needed(id, "item_truncate_invalid_item_id")
                raise Fault(
                    "truncate: this server answers in text: expected an item with spoken sound, got one without"
                )
            case wire.CreateResponse(response=response):
                return [*self._replies.create(response or wire.ResponseSaid()), *self._talk.listen()]
            case wire.CancelResponse(response_id=id):
                return self._replies.cancel(id)
            case wire.ClearSpoken():
                raise Fault("output_audio_buffer.clear: this server answers in text: it has no such buffer")

    # ---- sound ----
    def _appended(self, data: bytes) -> list[Told]:
        """With turn detection sound goes to the stream as it comes; else it waits for a commit."""
        form, wanted = self._settings.sound, self._settings.turn_detection
        if wanted is None:
            self._buffer.append(data, form)
            return []
        chunk = self._heard.append(data, form)
        self._talk.detection = detection_of(wanted, self._settings.model_decides)
        return [*self._talk.hear(chunk)]

    def _committed(self, event_id: str | None) -> list[Told]:
        if self._settings.turn_detection is None:
            item, before = self._buffer.commit(), self._last()
            committed = encode("input_audio_buffer.committed", item_id=item.id, previous_item_id=before)
            return [committed, *self._add(item, None, event_id)]
        return self._was_said(self._heard.now_us)

    def _was_said(self, until_us: int) -> list[Told]:
        """What was said up to here is an item, which the stream has."""
        item, before = self._heard.stopped(until_us), self._last()
        self._conversation.add(item)
        self._talk.heard(item)
        shown = item.shown()
        return [
            encode("input_audio_buffer.committed", item_id=item.id, previous_item_id=before),
            encode("conversation.item.added", item=shown, previous_item_id=before),
            encode("conversation.item.done", item=shown, previous_item_id=before),
        ]

    def _speech(self, event: SpeechStarted | SpeechStopped) -> Iterator[Told]:
        """The stream of the conversation hears that somebody begins or ends to speak."""
        at_ms = max(0, event.at_us) // 1000
        if isinstance(event, SpeechStarted):
            id = self._heard.started(event.at_us)
            yield encode("input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=id)
        elif self._heard.speaks is not None:
            id = self._heard.speaks
            yield encode("input_audio_buffer.speech_stopped", audio_end_ms=at_ms, item_id=id)
            yield from self._was_said(event.at_us)
            detection = self._settings.turn_detection or {"create_response": False}
            if detection["create_response"] and not self._talk.replies_by_itself and self._replies.active is None:
                yield from self._replies.create(wire.ResponseSaid())
                yield from self._talk.listen()

    def _last(self) -> str | None:
        return next((item.id for item in reversed(list(self._conversation))), None)

    def _add(self, item: RealtimeItem, after: str | None, event_id: str | None) -> list[Told]:
        """Put an item into the conversation, and append what may be appended."""
        self._conversation.add(item, after)
        before, shown = self._conversation.before(item), item.shown()
        commands = self._talk.keep_up()
        if item.media_bytes:
            self._event_ids[item.id] = event_id
        return [
            encode("conversation.item.added", item=shown, previous_item_id=before),
            encode("conversation.item.done", item=shown, previous_item_id=before),
            *commands,
            *self._talk.listen(),
        ]

    def _retrieved(self, id: str) -> bytes:
        item = self._conversation.needed(id, "item_retrieve_invalid_item_id")
        told = encode("conversation.item.retrieved", item=item.shown(whole=True))
        if len(told) > wire.MOST_BYTES:
            raise Fault(
                f"item {id}: at most {wire.MOST_BYTES} bytes go into one event, got {len(told)}", "item_too_large"
            )
        return told

    def _deleted(self, id: str) -> bytes:
        item = self._conversation.needed(id, "item_delete_invalid_item_id")
        if self._replies.writes(item):
            raise Fault(f"item {id}: a response still writes it: cancel the response first", "item_delete_in_progress")
        self._conversation.remove(item)
        return encode("conversation.item.deleted", item_id=id)

    # ---- from the session ----
    def tell(self, answer: c.Answer) -> Iterator[Told]:
        """The server's events for an answer of the session, and the commands that follow from it."""
        match answer:
            case c.StreamEvent(stream=stream, event=Error() as error):
                yield from self._wrong(stream, error)
            case c.StreamEvent(stream=stream, event=Closed(reason=reason)):
                yield from self._replies.lost(stream, f"the stream has ended: {reason}")
            case c.StreamEvent(stream=stream, event=SpeechStarted() | SpeechStopped() as event):
                if stream == self._talk.name:
                    yield from self._speech(event)
            case c.StreamEvent(stream=stream, event=event):
                if isinstance(event, ReplyStarted) and stream == self._talk.name and not self._replies.runs(stream):
                    yield from self._replies.began_by_itself()
                if isinstance(event, Appended) and (id := self._inputs.pop((stream, event.seq), None)):
                    self._event_ids.pop(id, None)
                yield from self._replies.event(stream, event)
            case c.CarriedOut(stream=stream, ref=("item", id), seq=int(seq)) if id in self._event_ids:
                self._inputs[stream, seq] = id
            case c.Refused(ref=("sound" | "listen" as what, _)) if not answer.fatal:
                place = "audio" if what == "sound" else "session.audio.input.turn_detection"
                yield encode_error(answer.message, openai_code(answer.code), place)
            case c.Refused(ref=("item", id)):
                yield self._refused_item(id, answer.code, answer.message)
                if answer.fatal and answer.stream is not None:
                    yield from self._replies.lost(answer.stream, answer.message)
            case c.Refused(stream=str(stream)):
                if answer.ref is not None or answer.fatal:
                    yield from self._replies.fail(stream, answer.code, answer.message)
                if answer.fatal:
                    yield from self._replies.lost(stream, answer.message)
            case c.Refused():
                yield encode_error(answer.message, openai_code(answer.code), answer.path, answer.ref)

    def _wrong(self, stream: str, error: Error) -> Iterator[Told]:
        """An input, or the whole stream, has come to nothing."""
        id = self._inputs.pop((stream, error.seq or 0), None)
        if error.fatal:
            yield from self._replies.fail(stream, error.code, error.message)
            yield from self._replies.lost(stream, error.message)
        elif id is not None:
            yield self._refused_item(id, error.code, error.message)
        elif error.seq == 1:  # a prompt; a question is refused by its own answer
            yield from self._replies.fail(stream, error.code, error.message)
            if stream == self._talk.name:
                yield from self._talk.leave()

    def _refused_item(self, id: str, code: str, message: str) -> bytes:
        item = self._conversation.find(id)
        if item is not None:
            item.failed = True
        return encode_error(f"item {id}: {message}", openai_code(code), "item", self._event_ids.pop(id, None))


def _error(fault: Fault, event_id: str | None) -> bytes:
    return encode_error(fault.message, fault.code, fault.param, event_id)
