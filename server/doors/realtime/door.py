"""The door `/v1/realtime`: what a client says, to commands of the session; the session's answers, to the server's
events. It knows neither sockets nor the engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ....errors import ContextOverflowError
from ....streams.event import Appended, Closed, Dropped, Error, ReplyStarted, SpeechStarted, SpeechStopped
from ... import commands as c
from ...config import ServerConfig
from . import wire
from .items import RealtimeConversation, RealtimeItem, item_of
from .replies import Responses, Told
from .settings import RealtimeSettings
from .speech import RealtimeSpeech
from .talk import RealtimeTalk
from .transcribing import TranscribingDoor
from .wire import Fault, encode, encode_error, new_id, openai_code

if TYPE_CHECKING:
    from ....actors.info import EngineInfo


def realtime_door(info: EngineInfo, config: ServerConfig, query: Mapping[str, str]) -> RealtimeDoor | TranscribingDoor:
    """The door for a client with this query: a conversation, or words alone where the model can be asked for them."""
    if query.get("intent") == "transcription" and "audio" in info.modalities and info.transcription is not None:
        return TranscribingDoor(info, info.transcription)
    return RealtimeDoor(info, config, query)


_FULL = (
    "the model does not have it, since the stream holds no more: delete items, or let the oldest media leave "
    "(truncation auto)"
)


class RealtimeDoor:
    """One Realtime session. A client that names an adapter in its URL wears it. One that names another model is served
    by the one that is there, and is told so."""

    subprotocol = "realtime"

    def __init__(self, info: EngineInfo, config: ServerConfig, query: Mapping[str, str] | None = None) -> None:
        self._transcribes = (query or {}).get("intent") == "transcription"
        self._settings = RealtimeSettings(new_id("sess"), info, (query or {}).get("model"))
        self._conversation = RealtimeConversation()
        self._talk = RealtimeTalk(self._conversation, self._settings)
        self._replies = Responses(self._conversation, self._settings, self._talk)
        self._speech = RealtimeSpeech(self._conversation, self._settings, self._talk, self._replies)
        self._full: set[str] = set()  # streams that hold no more sound
        self._inputs: dict[str, dict[int, str]] = {}  # by stream and number of the input: the item that it is part of

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
                return [encode("session.updated", session=self._settings.config), *self._speech.changed()]
            case wire.AppendSound(audio=audio, event_id=event_id):
                return self._speech.append(audio, event_id)
            case wire.CommitSound(event_id=event_id):
                return self._committed(event_id)
            case wire.ClearSound():
                return self._speech.clear()
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
                return self._speech.respond(response or wire.ResponseSaid())
            case wire.CancelResponse(response_id=id):
                return self._replies.cancel(id)
            case wire.ClearSpoken():
                raise Fault("output_audio_buffer.clear: this server answers in text: it has no such buffer")

    def _committed(self, event_id: str | None) -> list[Told]:
        told, before = self._speech.commit(), self._conversation.last_id
        if isinstance(told, list):
            return told
        committed = encode("input_audio_buffer.committed", item_id=told.id, previous_item_id=before)
        return [committed, *self._add(told, None, event_id)]

    def _add(self, item: RealtimeItem, after: str | None, event_id: str | None) -> list[Told]:
        """Put an item into the conversation, and append what may be appended."""
        if item.id == self._speech.speaks:
            why = f"item.id: expected an id that is free, got {item.id!r}, which is that of what is being said"
            raise Fault(why, "item_create_invalid_item_id", "item.id")
        self._conversation.add(item, after)
        before, shown = self._conversation.before(item), item.shown()
        commands = self._talk.keep_up(event_id)
        item.event_id = event_id
        return [
            encode("conversation.item.added", item=shown, previous_item_id=before),
            encode("conversation.item.done", item=shown, previous_item_id=before),
            *commands,
            *self._talk.listen(),
        ]

    def _retrieved(self, id: str) -> bytes:
        item = self._conversation.needed(id, "item_retrieve_invalid_item_id")
        if item.forgotten and any(piece.kind == "audio" for piece in item.pieces):
            raise Fault(f"item {id}: its sound is no longer kept", "item_not_kept", "item_id")
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
                yield from self._lost(stream, f"the stream has ended: {reason}")
            case c.StreamEvent(stream=stream, event=SpeechStarted() | SpeechStopped() as event):
                if stream == self._talk.name:
                    yield from self._speech.event(event)
            case c.StreamEvent(stream=stream, event=event):
                if isinstance(event, ReplyStarted) and stream == self._talk.name and not self._replies.runs(stream):
                    yield from self._replies.began_by_itself()
                if isinstance(event, Appended):
                    self._settled(stream, event.seq)
                elif isinstance(event, Dropped):
                    yield from self._dropped(stream, event)
                yield from self._replies.event(stream, event)
                yield from self._speech.answer()
            case c.CarriedOut(stream=stream, ref=("item", id), seq=int(seq)):
                self._inputs.setdefault(stream, {})[seq] = id
            case c.Refused(ref=("close", _)):
                pass  # it has ended before
            case c.Refused(ref=("open", event_id)):
                yield encode_error(answer.message, openai_code(answer.code), None, event_id)
                yield from self._lost(answer.stream or "", answer.message)
            case c.Refused(ref=("sound" | "listen" | "item" | "words", _), stream=str(stream)) if (
                not answer.fatal and stream != self._talk.name
            ):
                pass  # that stream is no more, and the client knows it; another one gets the conversation
            case c.Refused(ref=("sound" | "listen" as what, event_id)) if not answer.fatal:
                place = "audio" if what == "sound" else "session.audio.input.turn_detection"
                yield encode_error(answer.message, openai_code(answer.code), place, event_id)
            case c.Refused(ref=("item" | "words", id)):
                yield self._refused_item(id, answer.code, answer.message)
                if answer.fatal and answer.stream is not None:
                    yield from self._lost(answer.stream, answer.message)
            case c.Refused(stream=str(stream)):
                if answer.ref is not None or answer.fatal:
                    yield from self._replies.fail(stream, answer.code, answer.message)
                if answer.fatal:
                    yield from self._lost(stream, answer.message)
            case c.Refused():
                yield encode_error(answer.message, openai_code(answer.code), answer.path, answer.ref)

    def _lost(self, stream: str, message: str) -> Iterator[Told]:
        """A stream has ended."""
        listened = stream == self._talk.name
        self._inputs.pop(stream, None)
        self._full.discard(stream)
        yield from self._replies.lost(stream, message)
        if listened:
            yield from self._speech.lost()

    def _wrong(self, stream: str, error: Error) -> Iterator[Told]:
        """An input, or the whole stream, has come to nothing."""
        id = self._inputs.get(stream, {}).pop(error.seq or 0, None)
        if error.fatal:
            yield from self._replies.fail(stream, error.code, error.message)
            yield from self._lost(stream, error.message)
        elif id is not None:
            yield self._refused_item(id, error.code, error.message)
        elif error.seq == 1:  # a prompt; a question is refused by its own answer
            bad = self._replies.item_at(stream, error.message)
            if bad is not None and self._conversation.find(bad) is not None:
                yield self._refused_item(bad, error.code, error.message)
            yield from self._replies.fail(stream, error.code, error.message)
            if stream == self._talk.name:
                yield from self._talk.leave()

    def _refused_item(self, id: str, code: str, message: str) -> bytes:
        item = self._conversation.find(id)
        if item is not None:
            self._talk.failed(item)
        event_id = None if item is None else item.event_id
        return encode_error(f"item {id}: {message}", openai_code(code), "item", event_id)

    def _settled(self, stream: str, seq: int) -> list[str]:
        """The items of inputs up to this one of which nothing was told yet; nothing more will be told of them."""
        inputs = self._inputs.get(stream, {})
        numbers = [*itertools.takewhile(lambda number: number <= seq, inputs)]
        return [*dict.fromkeys(inputs.pop(number) for number in numbers)]

    def _dropped(self, stream: str, dropped: Dropped) -> Iterator[Told]:
        """The model will not have some media. Silence is no loss, and is told as what it is."""
        if dropped.reason == "silence" and stream == self._talk.name:
            self._speech.silent(dropped.stop_us)
        elif dropped.reason == "full":
            lost = self._settled(stream, dropped.seq)
            for id in lost:
                yield self._refused_item(id, ContextOverflowError.code, _FULL)
            if not lost and stream == self._talk.name and stream not in self._full:
                self._full.add(stream)
                yield encode_error(f"input audio: {_FULL}", openai_code(ContextOverflowError.code), "audio")


def _error(fault: Fault, event_id: str | None) -> bytes:
    return encode_error(fault.message, fault.code, fault.param, event_id)
