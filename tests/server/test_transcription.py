"""The unmodified `openai` package asks for the words of a sound: whole, as events, as text; and what is refused."""

from __future__ import annotations

import io
import wave
from functools import cache

import av
import numpy as np
import pytest
from openai import OpenAI
from penstock.demos.brook.sound import RATE
from tests.streams.spoken import silence, words


@cache
def spoken(*said: str) -> bytes:
    """Words with silence between them, as a WAV."""
    parts = [silence(0.5), *(part for word in said for part in (words(word, 20_001), silence(0.5)))]
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.concatenate(parts) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def as_mp3(wav: bytes) -> bytes:
    out = io.BytesIO()
    with av.open(io.BytesIO(wav)) as source, av.open(out, "w", format="mp3") as target:
        track = target.add_stream("libmp3lame", rate=RATE)
        for frame in source.decode(audio=0):
            target.mux(track.encode(frame))
        target.mux(track.encode(None))
    return out.getvalue()


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
        assert told.usage.input_tokens > (told.usage.input_token_details.audio_tokens or 0) > 12 * 2
        assert told.usage.total_tokens == told.usage.input_tokens + told.usage.output_tokens
    assert ask(model="brook", file=spoken("blue"), response_format="text") == "blue"
    assert ask(model="brook", file=spoken()).text == ""


def test_verbose(client: OpenAI) -> None:
    sound = spoken("blue", "three", "red")
    told = client.audio.transcriptions.create(model="brook", file=sound, response_format="verbose_json")
    assert (told.text, told.language, told.segments) == ("blue three red", "english", [])
    assert told.duration == pytest.approx(seconds(sound), abs=1e-3)
    assert told.usage is not None and told.usage.seconds == told.duration


def test_streamed(client: OpenAI) -> None:
    ask = client.audio.transcriptions.create
    *deltas, done = list(ask(model="brook", file=spoken("blue", "three", "red"), stream=True))
    assert [(event.type, event.delta) for event in deltas] == [
        ("transcript.text.delta", word) for word in ("blue", " three", " red")
    ]
    assert (done.type, done.text) == ("transcript.text.done", "blue three red")
    assert done.usage is not None and done.usage.input_token_details.audio_tokens
