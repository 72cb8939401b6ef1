"""The doors `/v1/audio/transcriptions` and `/v1/audio/translations`: the sound of a form to a conversation that asks
the model for its words, and the words of its answer to a body or to events.

In come a request's form and the answers of its session; out go `Command`s, JSON and text. Knows neither sockets nor the
engine. How a model is asked, and how its answer is read, is the model's (`EngineInfo.transcription`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ...errors import InputError
from ...streams.event import Appended, MediaDecoded
from ...streams.item import AudioBytes
from ...streams.requests.request import Request, SamplingParams
from ...streams.requests.transcription import Transcription, WordReader
from .. import commands as c
from ..answer import adapter_names, model_name
from ..config import ServerConfig
from ..errors import MessageError
from ..multipart import read_form
from ..openai_params import DEFAULT_TOKENS
from ..openai_replies import Ended, PartSaid, Replies
from ..openai_words import Failure, RequestBody, RequestMark, as_places, failure, named_model, read_fields, sse
from ..tool_calls import TextDelta

if TYPE_CHECKING:
    from ...actors.info import EngineInfo

_NO_TIMES = "this model gives no times: expected json, text or verbose_json"
_REFUSES = {
    "include": "this server gives no log probabilities of words",
    "timestamp_granularities": "the model gives no times",
    "known_speaker_names": "the model does not tell speakers apart",
    "known_speaker_references": "the model does not tell speakers apart",
}
_FILE = re.compile(r"^(?:messages\[\d+\]\.content\[0\]|media\[0\])[.\w]*")


class TranslationForm(msgspec.Struct, kw_only=True):
    """The form of `/v1/audio/translations`. `file`: the bytes of a sound file."""

    file: bytes
    model: str | None = None
    prompt: str | None = None
    response_format: Literal["json", "text", "verbose_json", "srt", "vtt"] = "json"
    temperature: float | None = None


class TranscriptionForm(TranslationForm, kw_only=True):
    """The form of `/v1/audio/transcriptions`. `language`: the code of the one that is spoken."""

    language: str | None = None
    stream: bool = False
    chunking_strategy: Literal["auto"] | None = None


class TranslationDoor:
    """One request for words in English. `MessageError` where its form is refused."""

    form: type[TranslationForm] = TranslationForm

    def __init__(self, info: EngineInfo, config: ServerConfig, body: RequestBody, mark: RequestMark) -> None:
        asked = _read(body, self.form)
        named = named_model(asked.model, model_name(info.model), adapter_names(info))
        self._wording = _wording(info)
        self._format = asked.response_format
        self.streams = isinstance(asked, TranscriptionForm) and asked.stream
        if self._format in ("srt", "vtt"):
            raise MessageError(f"response_format: {_NO_TIMES}, got {self._format}", "response_format")
        if self.streams and self._format == "verbose_json":
            raise MessageError(
                "response_format: expected json or text beside stream, got verbose_json", "response_format"
            )
        self.media_type = "text/plain; charset=utf-8" if self._format == "text" else "application/json"
        # Where a request does not say otherwise its likeliest words are taken.
        params = SamplingParams(max_tokens=DEFAULT_TOKENS, temperature=asked.temperature or 0.0)
        try:
            params.check()
            self._language, fields = self._asks(asked, AudioBytes(asked.file, final=True))
        except InputError as error:
            raise as_places(error, {}) from None
        self._replies = Replies([Request(**fields, adapter=named.adapter, params=params)], 1)
        self._size = len(body.data)
        self._reader = WordReader(self._wording.word)
        self._text = ""
        self._rows = 0  # of sound
        self._sound_us = 0
        self._failure: Failure | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._replies.done

    @property
    def failure(self) -> Failure | None:
        """What has come between."""
        failed = self._failure or self._replies.failure
        if failed is None:
            return None
        error = failed.body["error"]
        if (place := _FILE.match(error["message"])) is not None:
            error |= {"message": "file" + error["message"][place.end() :], "param": "file"}
        elif error["code"] == "context_length_exceeded":
            error |= {"param": "file"}  # the rest of the prompt is short
        return Failure(failed.status, {"error": error})

    def greet(self) -> Iterator[c.Command]:
        """What the session is to do."""
        return self._replies.open(self._size)

    def tell(self, answer: c.Answer) -> Iterator[bytes | c.Command]:
        """What follows from an answer of the session: commands, and where the client wants them, events."""
        if isinstance(answer, c.StreamEvent):
            match answer.event:
                case Appended(rows=rows):
                    self._rows += rows
                case MediaDecoded(sound_us=sound_us):
                    self._sound_us = sound_us
        for happened in self._replies.take(answer):
            match happened:
                case PartSaid(part=TextDelta(text)):
                    yield from self._said(self._reader.feed(text))
                case Ended(reason="length"):
                    why = f"file: expected words that fit into {DEFAULT_TOKENS} tokens and the stream, got more"
                    self._failure = failure(400, why, "file", "context_length_exceeded")
                case Ended():
                    yield from self._said(self._reader.end())

    def end(self) -> Iterator[bytes]:
        """The last event: all words and what they have cost, or why the answer is broken off."""
        if self.failure is not None:
            yield sse(self.failure.body)
        else:
            yield sse({"type": "transcript.text.done", "text": self._text, "usage": self._usage()})

    def body(self) -> bytes:
        """The whole answer."""
        if self._format == "text":
            return self._text.encode()
        answer: dict[str, Any] = {"text": self._text}
        if self._format == "json":
            return msgspec.json.encode(answer | {"usage": self._usage()})
        seconds = self._sound_us / 1e6
        answer |= {"language": self._language, "duration": seconds, "segments": []}
        return msgspec.json.encode(answer | {"usage": {"type": "duration", "seconds": seconds}})

    def _said(self, words: str) -> Iterator[bytes]:
        self._text += words
        if words and self.streams:
            yield sse({"type": "transcript.text.delta", "delta": words})

    def _usage(self) -> dict[str, Any]:
        replies = self._replies
        return {
            "type": "tokens",
            "input_tokens": replies.rows,
            "output_tokens": replies.tokens,
            "total_tokens": replies.rows + replies.tokens,
            "input_token_details": {"audio_tokens": self._rows, "text_tokens": replies.rows - self._rows},
        }

    def _asks(self, asked: TranslationForm, sound: AudioBytes) -> tuple[str, dict[str, Any]]:
        """The language of the words as answers name it, and the fields of the request."""
        return "english", self._wording.translating(sound, asked.prompt or "")


class TranscriptionDoor(TranslationDoor):
    """One request for the words as they were said. `MessageError` where its form is refused."""

    form = TranscriptionForm

    def _asks(self, asked: TranslationForm, sound: AudioBytes) -> tuple[str, dict[str, Any]]:
        assert isinstance(asked, TranscriptionForm)
        language = asked.language or ""
        fields = self._wording.asking(sound, language, asked.prompt or "")
        return self._wording.name(language).lower() or "unknown", fields


def _read(body: RequestBody, form: type[TranslationForm]) -> TranslationForm:
    """The form. A list may be called with brackets behind its name."""
    raw: dict[str, Any] = {}
    for name, value in read_form(body.data, body.content_type).items():
        name = name.removesuffix("[]")
        if name in raw:
            raise MessageError(f"{name[:80]}: expected one value, got two", name[:80])
        try:
            raw[name] = value if name == "file" else value.decode()
        except UnicodeDecodeError as error:
            raise MessageError(f"{name[:80]}: expected UTF-8, got {error}", name[:80]) from None
    return read_fields({name: value or None for name, value in raw.items()}, form, _REFUSES, strict=False)


def _wording(info: EngineInfo) -> Transcription:
    name = model_name(info.model)
    if "audio" not in info.modalities:
        takes = ", ".join(kind for kind in info.modalities if kind != "unit") or "nothing but text"
        raise MessageError(f"model: expected one that hears, got {name!r}, which takes {takes}", "model")
    if info.transcription is None:
        why = "model: expected one whose family, or transcription in its config.json, says how it is asked for words"
        raise MessageError(f"{why}, got {name!r}", "model")
    return info.transcription
