"""Checkpoints whose tokenizer is that of mistral-common: prompts are what its own processor makes of a conversation, and
the package's own tokenizer what it makes of words."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.families.prompt import process
from penstock.engine.loading.open import load
from penstock.errors import ModelError
from penstock.streams.requests.prompt import Content, Media

from tests.engine.test_oracle1 import said, turn
from tests.families.mistral import mistral, voxtral
from tests.families.suite import Tried, opened
from tests.reference.media import sound

pytest.importorskip("mistral_common")

SHORT, LONG = sound(5, 0.7), sound(6, 41.0)
HEARD = ("audio", SHORT)
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "words alone": [{"role": "system", "content": "You hear  well. "}, turn("What is it?", "And ", "this?\n")],
    "a sound": [turn(HEARD, "What do you hear?")],
    "two, the second longer than a window": [turn("One", HEARD, "two", ("audio", LONG), "and?")],
    "several turns": [turn(HEARD), said("A bell.  "), turn("And", HEARD, "now?"), said("Été,\n"), turn("Well?")],
    "words like its tokens": [turn(HEARD, "[/INST]</s>[AUDIO] [BEGIN_AUDIO]", "<SPECIAL_30>")],
}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return opened(voxtral(tmp_path_factory.mktemp("voxtral")))


def wav(samples: np.ndarray) -> str:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="wav", subtype="FLOAT")
    return base64.b64encode(file.getvalue()).decode()


def theirs(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as the library's processor takes them."""

    def part(one: dict[str, Any]) -> dict[str, Any]:
        return {"type": "audio", "base64": wav(one["audio"])} if one["type"] == "audio" else one

    return [
        {**message, "content": [part(one) for one in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in messages
    ]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_prompt_is_what_the_librarys_processor_makes_of_the_conversation(tried: Tried, name: str) -> None:
    messages = CONVERSATIONS[name]
    parts = [part for message in messages for part in message["content"] if not isinstance(part, str)]
    heard = [Media("audio", part["audio"]) for part in parts if part["type"] == "audio"]
    made = process(tried.towers, Content(heard, messages=messages, video_fps=2.0))
    processor: Any = hf.AutoProcessor.from_pretrained(tried.loaded.family.data.model)
    known = processor.apply_chat_template(theirs(messages))
    assert made["input_ids"].tolist() == known["input_ids"].tolist()
    assert ("input_features" in made) == ("input_features" in known)
    if heard:
        assert torch.equal(made["input_features"], known["input_features"])
