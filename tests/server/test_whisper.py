"""Whisper behind the doors that give words: the unmodified `openai` package gets what the library's `generate` says."""

from __future__ import annotations

import asyncio
import base64
import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
import transformers as hf
from harness import serving
from openai import AsyncOpenAI
from penstock import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from realtime_client import talking
from safetensors.torch import load_file, save_file
from test_realtime_transcription import QUERY, WORDS, spoken_words, update
from test_realtime_voice import speak

from tests.families.crossing import whisper
from tests.reference.media import sound

RATE = 16_000
SAID = np.round(sound(6, 1.9) * 32767).astype("<i2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper whose transcripts end: what it says over and over in the end becomes the end."""
    made = whisper(tmp_path_factory.mktemp("whisper"))
    often = _by_library(made, length=24)[-1]
    file = made / "model.safetensors"
    weights = load_file(file)
    head = weights["proj_out.weight"]
    head[hf.AutoConfig.from_pretrained(made).eos_token_id] = 1.1 * head[often]
    save_file(weights, file, {"format": "pt"})
    return made


def _by_library(folder: Path, length: int = 48, **asks: Any) -> list[int]:
    """The ids of the words of `SAID`."""
    model: Any = hf.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    heard = hf.AutoProcessor.from_pretrained(folder)(
        audio=SAID.astype(np.float32) / 32768, sampling_rate=RATE, return_tensors="pt"
    )
    asks = {"task": "transcribe", "language": "en"} | asks
    ids = model.generate(heard.input_features, max_new_tokens=length, do_sample=False, **asks)[0].tolist()
    begins = model.generation_config.no_timestamps_token_id
    ids = ids[ids.index(begins) + 1 :] if begins in ids else ids
    return [id for id in ids if id != model.config.eos_token_id]


def _words(folder: Path, **asks: Any) -> str:
    return hf.AutoProcessor.from_pretrained(folder).tokenizer.decode(_by_library(folder, **asks)).strip()


def _file() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(SAID.tobytes())
    return out.getvalue()


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK says so of its translations
def test_a_file_becomes_words(folder: Path) -> None:
    async def main() -> None:
        async with (
            Engine(load(folder, EngineConfig()), EngineConfig(kv_tokens=2048)) as engine,
            serving(engine) as url,
            AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client,
        ):
            ask, name = client.audio.transcriptions.create, folder.name
            told = await ask(model=name, file=("a.wav", _file()), language="en")
            assert told.text == _words(folder) != ""
            assert told.usage is not None and told.usage.type == "tokens"
            assert told.usage.input_token_details is not None
            assert told.usage.input_token_details.audio_tokens == 100  # rows of its two seconds
            told = await ask(model=name, file=("a.wav", _file()), language="de", response_format="verbose_json")
            assert (told.text, told.language) == (_words(folder, language="de"), "german")
            told = await client.audio.translations.create(model=name, file=("a.wav", _file()))
            assert told.text == _words(folder, language=None, task="translate")
            for fields in ({"language": "xx"}, {"file": ("a.wav", _file()[:44] + 3 * _file()[44:])}):
                with pytest.raises(openai.BadRequestError):
                    await ask(**{"model": name, "file": ("a.wav", _file()), **fields})
            assert (await ask(model=name, file=("a.wav", _file()), language="en")).text == _words(folder)

    asyncio.run(main())


def test_a_live_session_gives_words_of_what_is_committed(folder: Path) -> None:
    """As a prompt of its own, in the language that the client names."""

    async def main() -> None:
        async with Engine(load(folder, EngineConfig()), EngineConfig(kv_tokens=2048)) as engine, serving(engine) as url:
            async with asyncio.timeout(60), talking(url, extra_query=QUERY) as client:
                sent = {"type": "audio/pcm", "rate": 24_000}
                told = await update(client, turn_detection=None, transcription={"language": "en"}, format=sent)
                assert told["turn_detection"] is None
                places = np.arange(len(SAID) * 3 // 2) / 1.5
                samples = np.interp(places, np.arange(len(SAID)), SAID).astype("<i2")
                buffer = client.connection.input_audio_buffer
                await buffer.append(audio=base64.b64encode(samples.tobytes()).decode())
                await buffer.commit()
                done = await client.until(f"{WORDS}.completed")
                assert done["transcript"] and done["usage"]["input_token_details"]["audio_tokens"] == 100

    asyncio.run(main())


@spoken_words
def test_a_live_session_hears_where_somebody_speaks(folder: Path) -> None:
    """A stream listens, keeps nothing, and each utterance becomes a prompt."""

    async def main() -> None:
        async with Engine(load(folder, EngineConfig()), EngineConfig(kv_tokens=2048)) as engine, serving(engine) as url:
            async with asyncio.timeout(60), talking(url, extra_query=QUERY) as client:
                for word in ("red", "blue"):
                    client.told.clear()
                    await speak(client, word)
                    done = await client.until(f"{WORDS}.completed", f"{WORDS}.failed")
                    kinds = [event["type"] for event in client.told]
                    assert kinds[:2] == ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
                    # Whatever a model with random weights says of it, to the end of its positions or not.
                    assert done["type"].endswith("completed") or done["error"]["code"] == "context_length_exceeded"

    asyncio.run(main())
