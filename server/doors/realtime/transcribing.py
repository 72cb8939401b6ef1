"""The door `/v1/realtime?intent=transcription`: what is said becomes words, utterance by utterance; nobody replies.

In come a client's events and the answers of its session; out go events and commands. One stream listens for speech.
Each utterance is asked for in a stream of its own, in their order. How the model is asked is the model's own
(`EngineInfo.transcription`).
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ....errors import InputError
from ....streams.event import Appended, Closed, Dropped, Error, ReplyDone, SpeechStarted, SpeechStopped, Token
from ....streams.item import AudioChunk
from ....streams.requests.request import Request, SamplingParams
from ....streams.requests.transcription import Transcription, WordReader
from ....streams.requests.turns import TurnDetection
from ... import commands as c
from ..heard import SoundClock
from . import wire
from .hearing import SoundBuffer
from .items import RealtimeItem
from .settings import MOST_TOKENS, check_fields, checked_text, first_sound, inside, sound_of, update_sound
from .sound import FORMATS, SoundFormat
from .turns import HeardSound, detection_of
from .wire import Fault, encode, encode_error, new_id, openai_code

if TYPE_CHECKING:
    from ....actors.info import EngineInfo

Told = bytes | c.Command
# Utterances that may wait for their words; one more is told that it gets none.
MOST_WAITING = 16
_LISTENS = "listen"
_EVENT = "conversation.item.input_audio_transcription"


class _Utterance:
    """What was said, and the words of it so far. Its stream has the name of its item."""

    def __init__(self, item: RealtimeItem, request: Request, word: str) -> None:
        self.item = item
        self.request = request
        self.reader = WordReader(word)
        self.text = ""
        self.rows = 0  # of sound


class TranscribingDoor:
    """One live transcription session."""

    subprotocol = "realtime"

    def __init__(self, info: EngineInfo, wording: Transcription) -> None:
        self._info = info
        self._wording = wording
        self.config: dict[str, Any] = {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": new_id("sess"),
            "audio": {"input": first_sound(True) | {"transcription": _first_wording(info)}},
            "include": None,
        }
        clock = SoundClock()
        self._buffer = SoundBuffer(clock)
        self._heard = HeardSound(clock)
        self._open = False  # a stream listens
        self._listens: TurnDetection | None = None  # what it listens for
        self._last: str | None = None  # the item before
        self._waiting: deque[_Utterance] = deque()  # the first of them is being asked for

    @property
    def _input(self) -> dict[str, Any]:
        return self.config["audio"]["input"]

    @property
    def _form(self) -> SoundFormat:
        return FORMATS[self._input["format"]["type"]]

    def greet(self) -> Iterator[bytes]:
        """`session.created`."""
        yield encode("session.created", session=self.config)

    # ---- from the client ----
    def hear(self, message: str | bytes) -> Iterable[Told]:
        """The answer to an event of the client, and commands. What cannot be done is answered by an `error`, and then
        nothing has changed."""
        try:
            said = wire.decode(message)
        except Fault as fault:
            return [encode_error(fault.message, fault.code, fault.param, wire.event_id_of(message))]
        try:
            return list(self._follow(said))
        except Fault as fault:
            return [encode_error(fault.message, fault.code, fault.param, said.event_id)]

    def _follow(self, said: wire.ClientEvent) -> Iterable[Told]:
        match said:
            case wire.UpdateSession(session=session):
                self._update(session)
                return [encode("session.updated", session=self.config), *self._changed()]
            case wire.AppendSound(audio=audio, event_id=event_id):
                return self._appended(audio, event_id)
            case wire.CommitSound():
                return self._committed()
            case wire.ClearSound():
                self._heard.clear()
                self._buffer.clear()
                return [encode("input_audio_buffer.cleared")]
        raise Fault("expected session.update or an event of input_audio_buffer: a transcription session has no replies")

    def _update(self, said: dict[str, Any]) -> None:
        """Change what is said, and only that. Fault: nothing has changed."""
        if said.get("type", "transcription") != "transcription":
            raise Fault(
                f"session.type: expected 'transcription', got {said['type']!r:.40}: for a conversation connect without "
                "intent=transcription",
                param="session.type",
            )
        config = copy.deepcopy(self.config)
        check_fields(said, ("type", "object", "id", "audio", "include", "expires_at"), "session")
        heard = sound_of(said)
        update_sound(config["audio"]["input"], heard, self._info)
        detection = config["audio"]["input"]["turn_detection"]
        if detection is not None and "idle_timeout_ms" in detection:
            detection["idle_timeout_ms"] = None  # silence has no words
        known, place = config["audio"]["input"]["transcription"], "session.audio.input.transcription"
        wanted = inside(heard, "transcription", "session.audio.input")
        check_fields(wanted, ("model", "language", "prompt", "languages", "keywords", "delay"), place)
        for name in ("language", "prompt"):
            if name in wanted:
                known[name] = "" if wanted[name] is None else checked_text(wanted[name], f"{place}.{name}")
        try:
            self._wording.asking(self._form.chunk(b""), known["language"], known["prompt"])
        except InputError as error:
            raise Fault(f"{place}.{error}", param=f"{place}.{str(error).partition(':')[0]}") from None
        self.config = config

    def _changed(self) -> list[Told]:
        """The settings are others: what was held goes to the stream, where turn detection begins."""
        if self._detection is not None and (held := self._buffer.take()) is not None:
            return self._to_stream(self._heard.take(held, self._detection), None)
        return self._listen()

    def _appended(self, data: bytes, event_id: str | None) -> list[Told]:
        """With turn detection sound goes to the stream that listens; else it waits for a commit."""
        if self._detection is None:
            self._buffer.append(data, self._form)
            return []
        chunk = self._heard.append(data, self._form, self._detection)
        return self._to_stream(chunk, event_id) if data else []

    def _to_stream(self, chunk: AudioChunk, event_id: str | None) -> list[Told]:
        commands = list[Told]()
        if not self._open:
            self._open = True
            listens = Request(format="turns", turn_detection=self._detection)
            self._listens = self._detection
            commands.append(c.OpenStream(stream=_LISTENS, request=listens, ref=("listen", event_id)))
        append = c.AppendItem(stream=_LISTENS, item=chunk, size=len(chunk.data), ref=("sound", event_id))
        return [*commands, *self._listen(), append]

    def _committed(self) -> list[Told]:
        """What is held is an utterance; with turn detection, what was said up to here, and what follows is another."""
        if self._detection is None:
            return self._said(self._buffer.commit())
        now_us = self._heard.now_us
        told = self._said(self._heard.stopped(now_us))
        id = self._heard.started(now_us)
        return [*told, encode("input_audio_buffer.speech_started", audio_start_ms=now_us // 1000, item_id=id)]

    @property
    def _detection(self) -> TurnDetection | None:
        """What the stream is to listen for. It asks nothing by itself, and keeps nothing: what is said is asked for as
        a prompt of its own."""
        detection = detection_of(self._input["turn_detection"], True)
        return detection and msgspec.structs.replace(detection, keeps=False)

    def _listen(self) -> list[Told]:
        """Let the stream listen for what is wanted."""
        wanted = self._detection
        if not self._open or wanted == self._listens:
            return []
        self._listens = wanted
        return [c.Listen(stream=_LISTENS, turn_detection=wanted, ref=("listen", None))]

    def _said(self, item: RealtimeItem) -> list[Told]:
        """Somebody has said something: it is an item, and its words are asked for."""
        before, self._last, shown = self._last, item.id, item.shown()
        told: list[Told] = [
            encode("input_audio_buffer.committed", item_id=item.id, previous_item_id=before),
            encode("conversation.item.added", item=shown, previous_item_id=before),
            encode("conversation.item.done", item=shown, previous_item_id=before),
        ]
        if len(self._waiting) == MOST_WAITING:
            why = f"transcription: at most {MOST_WAITING} utterances wait for their words, got one more"
            return [*told, _failed(item.id, "overload", why)]
        known = self._input["transcription"]
        if item.forgotten:
            why = "transcription: expected an utterance of at most 300 s, got a longer one"
            return [*told, _failed(item.id, "invalid_value", why)]
        fields = self._wording.asking(item.pieces[0].item(), known["language"], known["prompt"])
        params = SamplingParams(max_tokens=MOST_TOKENS, temperature=0.0)
        request = Request(**fields, params=params, window=None, positions="transformers")
        self._waiting.append(_Utterance(item, request, self._wording.word))
        return [*told, *(self._next() if len(self._waiting) == 1 else [])]

    def _next(self) -> list[Told]:
        """Ask for the words of the next utterance."""
        if not self._waiting:
            return []
        one = self._waiting[0]
        return [c.OpenStream(stream=one.item.id, request=one.request, size=one.item.media_bytes, ref=("words", 0))]

    # ---- from the session ----
    def tell(self, answer: c.Answer) -> Iterator[Told]:
        """The server's events for an answer of the session, and the commands that follow from it."""
        match answer:
            case c.StreamEvent(stream=stream, event=event) if stream == _LISTENS:
                yield from self._speech(event)
            case c.StreamEvent(stream=stream, event=event) if self._is_asked(stream):
                yield from self._words(self._waiting[0], event)
            case c.Refused(ref=("close", _)):
                pass  # it has ended before
            case c.Refused(stream=str(stream)) if self._is_asked(stream):
                yield from self._end(_failed(stream, answer.code, answer.message), is_open=not answer.fatal)
            case c.Refused(stream=stream) if stream == _LISTENS:
                yield from self._refused(answer)
            case c.Refused() if not answer.fatal:
                yield encode_error(answer.message, openai_code(answer.code), answer.path)

    def _refused(self, answer: c.Refused) -> Iterator[Told]:
        """The stream that listens refuses something, or does not come into being: then what was for it is refused as
        well, of which the client knows by then. The next sound begins another one."""
        if not self._open:
            return
        event_id = answer.ref[1] if isinstance(answer.ref, tuple) else None
        yield encode_error(answer.message, openai_code(answer.code), answer.path, event_id)
        if answer.fatal:
            yield from self._lost()

    def _lost(self) -> Iterator[Told]:
        """The stream that listens has ended: what was being said is an utterance, as far as it came."""
        self._open = False
        if self._heard.speaks is not None:
            yield from self._stopped(self._heard.now_us)

    def _stopped(self, at_us: int) -> Iterator[Told]:
        """Somebody speaks no more."""
        at_us = max(at_us, self._heard.from_us)
        id = self._heard.speaks
        yield encode("input_audio_buffer.speech_stopped", audio_end_ms=at_us // 1000, item_id=id)
        if at_us > self._heard.from_us:
            yield from self._said(self._heard.stopped(at_us))
        else:
            self._heard.never_mind(at_us)

    def _is_asked(self, stream: str) -> bool:
        return bool(self._waiting) and self._waiting[0].item.id == stream

    def _speech(self, event: Any) -> Iterator[Told]:
        match event:
            case SpeechStarted(at_us=at_us):
                id = self._heard.started(at_us)
                at_ms = self._heard.from_us // 1000
                yield encode("input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=id)
            case SpeechStopped(at_us=at_us) if self._heard.speaks is not None:
                yield from self._stopped(at_us)
            case Dropped(reason="silence", stop_us=stop_us):
                self._heard.silent(stop_us or 0)
            case Error(code=code, message=message):
                yield encode_error(message, openai_code(code))
            case Closed():
                yield from self._lost()

    def _words(self, one: _Utterance, event: Any) -> Iterator[Told]:
        """An event of the stream in which an utterance is asked for."""
        match event:
            case Appended(rows=rows):
                one.rows += rows
            case Token(text=text):
                yield from _delta(one, one.reader.feed(text))
            case ReplyDone(reason="stop", text=text):
                yield from _delta(one, one.reader.feed(text) + one.reader.end())
                id, usage = one.item.id, _usage(one, event)
                done = encode(f"{_EVENT}.completed", item_id=id, content_index=0, transcript=one.text, usage=usage)
                yield from self._end(done)
            case ReplyDone(reason="length"):
                why = f"transcription: expected words that fit into {MOST_TOKENS} tokens and the stream, got more"
                yield from self._end(_failed(one.item.id, "context_length_exceeded", why))
            case ReplyDone(reason=reason) | Closed(reason=reason):
                why = f"transcription: expected the words to their end, got {reason}"
                is_open = isinstance(event, ReplyDone)
                yield from self._end(_failed(one.item.id, "stream_closed", why), is_open)
            case Error(code=code, message=message):
                yield from self._end(_failed(one.item.id, code, message))

    def _end(self, told: bytes, is_open: bool = True) -> Iterator[Told]:
        """The first utterance has its words, or gets none."""
        yield told
        stream = self._waiting.popleft().item.id
        if is_open:
            yield c.CloseStream(stream=stream, ref=("close", None))
        yield from self._next()


def _first_wording(info: EngineInfo) -> dict[str, Any]:
    return {"model": info.model.rpartition("/")[2], "language": "", "prompt": ""}


def _delta(one: _Utterance, words: str) -> Iterator[bytes]:
    one.text += words
    if words:
        yield encode(f"{_EVENT}.delta", item_id=one.item.id, content_index=0, delta=words)


def _usage(one: _Utterance, done: ReplyDone) -> dict[str, Any]:
    return {
        "type": "tokens",
        "input_tokens": done.rows,
        "output_tokens": done.tokens,
        "total_tokens": done.rows + done.tokens,
        "input_token_details": {"audio_tokens": one.rows, "text_tokens": done.rows - one.rows},
    }


def _failed(id: str, code: str, message: str) -> bytes:
    kind = "server_error" if code == "internal" else "invalid_request_error"
    error = {"type": kind, "code": openai_code(code), "message": message, "param": None}
    return encode(f"{_EVENT}.failed", item_id=id, content_index=0, error=error)
