"""The unmodified `openai` package asks for the words of a sound: whole, as events, as text; and what is refused."""

from __future__ import annotations

import asyncio
import io
import json
import re
import wave
from functools import cache
from http.client import HTTPConnection
from typing import Any, NamedTuple

import av
import numpy as np
import openai
import pytest
from harness import serving
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI
from openai.types.audio import TranscriptionTextDoneEvent
from penstock import Engine
from penstock.demos.brook.sound import RATE
from penstock.engine.config import EngineConfig
from penstock.engine.families.transcription import WORDINGS
from penstock.server.commands import OpenStream
from penstock.server.config import ServerConfig
from penstock.server.doors.openai_transcription import TranscriptionDoor, TranslationDoor
from penstock.server.errors import MessageError
from penstock.server.openai_words import RequestBody, RequestMark
from penstock.streams.requests.transcription import WordReader

from tests.fixtures.recipe import model_path
from tests.streams.spoken import silence, words

BROOK = r"\b(?:one|two|red)\b"


@cache
def spoken(*said: str) -> bytes:
    """Words with silence between them, as a WAV."""
    return wav(np.concatenate([silence(0.5), *(part for word in said for part in (words(word, 20_001), silence(0.5)))]))


def wav(sound: np.ndarray) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return out.getvalue()


def as_mp3(wav: bytes) -> bytes:
    out = io.BytesIO()
    with av.open(io.BytesIO(wav), "r") as source, av.open(out, "w", format="mp3") as target:
        track = target.add_stream("libmp3lame", rate=RATE)
        for frame in source.decode(audio=0):
            target.mux(track.encode(frame))
        target.mux(track.encode(None))
    return out.getvalue()


def sound_tokens(usage: Any) -> int:
    return usage.input_token_details.audio_tokens


def seconds(wav: bytes) -> float:
    with wave.open(io.BytesIO(wav)) as file:
        return file.getnframes() / file.getframerate()


@pytest.fixture(scope="module")
def client(brook_url: str) -> OpenAI:
    return OpenAI(base_url=f"{brook_url}/v1", api_key="none", max_retries=0, timeout=60)


def test_whole(client: OpenAI) -> None:
    ask = client.audio.transcriptions.create
    for name, sound in (("a.wav", spoken("one", "two")), ("a.mp3", as_mp3(spoken("one", "two")))):
        told = ask(model="brook", file=(name, sound), language="en", temperature=0)
        assert told.text == "one two"
        assert told.usage is not None and told.usage.type == "tokens"
        assert told.usage.input_tokens > sound_tokens(told.usage) > 12 * 2
        assert told.usage.total_tokens == told.usage.input_tokens + told.usage.output_tokens
    assert ask(model="brook", file=spoken("blue"), response_format="text") == "blue"
    assert ask(model="brook", file=spoken()).text == ""


def test_a_word_behind_a_long_silence(client: OpenAI) -> None:
    """Longer than the processor's own 30 seconds: none of it is cut."""
    sound = wav(np.concatenate([silence(31), words("red", 20_001), silence(0.5)]))
    told = client.audio.transcriptions.create(model="brook", file=sound)
    assert told.text == "red" and told.usage is not None and sound_tokens(told.usage) > 31 * 12


def test_verbose(client: OpenAI) -> None:
    sound = spoken("blue", "three", "red")
    told = client.audio.transcriptions.create(model="brook", file=sound, response_format="verbose_json")
    assert (told.text, told.language, told.segments) == ("blue three red", "english", [])
    assert told.duration == pytest.approx(seconds(sound), abs=1e-3)
    assert told.usage is not None and told.usage.seconds == told.duration


def test_streamed(client: OpenAI) -> None:
    ask = client.audio.transcriptions.create
    *deltas, done = [event.to_dict() for event in ask(model="brook", file=spoken("blue", "three", "red"), stream=True)]
    assert deltas == [{"type": "transcript.text.delta", "delta": word} for word in ("blue", " three", " red")]
    TranscriptionTextDoneEvent.model_validate(done)
    assert (done["type"], done["text"]) == ("transcript.text.done", "blue three red")
    assert done["usage"] and done["usage"]["input_token_details"]["audio_tokens"]  # pyright: ignore


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("file", {"file": b"no sound at all"}),
        ("file", {"file": b""}),
        ("file", {"file": ("a.wav", b"RIFF" + bytes(2000))}),
        ("response_format", {"response_format": "srt"}),
        ("response_format", {"response_format": "loud"}),
        ("response_format", {"response_format": "verbose_json", "stream": True}),
        ("language", {"language": "de"}),
        ("prompt", {"prompt": "colours"}),
        ("temperature", {"temperature": -1}),
        ("include", {"include": ["logprobs"]}),
        ("timestamp_granularities", {"timestamp_granularities": ["word"]}),
        ("model", {"model": "whisper-1"}),
    ],
)
def test_refused(client: OpenAI, param: str, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.audio.transcriptions.create(**{"model": "brook", "file": wav(silence(1)), **fields})
    assert refused.value.status_code == (404 if param == "model" else 400) and refused.value.param == param
    assert f" {param}: " in refused.value.message


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK says so of its translations
def test_what_is_no_form(client: OpenAI, brook_url: str) -> None:
    for kind, body in (
        ("application/json", b"{}"),
        ("multipart/form-data; boundary=x", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"nothing"),
        ("multipart/form-data; boundary=x", b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nbrook\r\n'),
        ("multipart/form-data", b"--x--"),
    ):
        line = HTTPConnection(brook_url.removeprefix("http://"))
        line.request("POST", "/v1/audio/transcriptions", body, {"content-type": kind})
        answer = line.getresponse()
        assert answer.status == 400 and "expected" in json.loads(answer.read())["error"]["message"]
        line.close()
    with pytest.raises(openai.BadRequestError, match="translates") as error:
        client.audio.translations.create(model="brook", file=wav(silence(1)))
    assert error.value.param == "model"


def test_what_is_too_long_and_who_does_not_hear() -> None:
    """Long sound, and words that do not end, are refused: no transcript is cut."""

    async def refused(name: str, sound: bytes, most: int = 1 << 20, **fields: Any) -> openai.APIStatusError:
        async with (
            await Engine.load(model_path(name), config=EngineConfig(kv_tokens=640)) as engine,
            serving(engine, max_message_bytes=most) as url,
            AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client,
        ):
            with pytest.raises(openai.APIStatusError) as error:
                await client.audio.transcriptions.create(model="", file=sound, **fields)
            return error.value

    async def main() -> None:
        for sound in (wav(silence(30)), wav(silence(2))):
            error = await refused("omni", sound)
            assert (error.status_code, error.code, error.param) == (400, "context_length_exceeded", "file")
        error = await refused("omni", wav(silence(2)), 1 << 10)
        assert (error.status_code, error.code) == (413, "request_too_large")
        error = await refused("qwen2_vl", wav(silence(1)))
        assert error.status_code == 400 and error.param == "model" and "hears" in error.message

    asyncio.run(main())


class _Info(NamedTuple):
    model: str = "omni"
    modalities: tuple[str, ...] = ("image", "audio")
    transcription: Any = WORDINGS["qwen2_5_omni"]
    adapters: tuple[Any, ...] = ()


def form(**fields: str) -> RequestBody:
    parts = [f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
    return RequestBody("\r\n".join([*parts, "--x--\r\n"]).encode(), "multipart/form-data; boundary=x")


def test_a_model_is_asked_as_its_makers_ask_it() -> None:
    def asked(door: type[TranslationDoor], **fields: str) -> tuple[str, str]:
        info: Any = _Info()
        (command,) = door(info, ServerConfig(), form(file="sound", **fields), RequestMark("1", 1)).greet()
        assert isinstance(command, OpenStream) and command.request.messages
        system, user = command.request.messages
        sound, text = user["content"]
        assert sound["audio"].data == b"sound" and sound["audio"].final
        return system["content"], text["text"]

    listens, translates = "You are a speech recognition model.", "You are a speech translation model."
    assert asked(TranscriptionDoor) == (listens, "Transcribe the audio into text.")
    assert asked(TranscriptionDoor, language="ZH") == (listens, "Transcribe the Chinese audio into text.")
    hinted = asked(TranscriptionDoor, prompt="Penstock")[1].splitlines()
    assert hinted == ["These words belong to the audio: Penstock", "Transcribe the audio into text."]
    system, question = asked(TranslationDoor)
    assert system == translates and "English" in question
    with pytest.raises(MessageError, match="language: expected en, zh"):
        asked(TranscriptionDoor, language="xx")


@given(st.data(), st.sampled_from(["one, two and red.", "nothing.", "I do not know.", "", "one", " redone and red "]))
def test_words_are_the_same_however_they_come(data: st.DataObject, answer: str) -> None:
    for word, whole in (("", answer.strip()), (BROOK, " ".join(re.findall(BROOK, answer)))):
        reader, said, rest = WordReader(word), "", answer
        while rest:
            count = data.draw(st.integers(1, len(rest)))
            said += reader.feed(rest[:count])
            rest = rest[count:]
        assert said + reader.end() == whole
