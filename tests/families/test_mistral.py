"""Checkpoints whose tokenizer is that of mistral-common: prompts are what its own processor makes of a conversation,
and the package's own tokenizer what it makes of words."""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.families import tekken
from penstock.engine.families.prompt import process
from penstock.engine.loading.open import load
from penstock.errors import ModelError
from penstock.streams.item import Item
from penstock.streams.requests.prompt import Content, Media, Piece

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
    heard: list[Piece] = [Media("audio", part["audio"]) for part in parts if part["type"] == "audio"]
    made = process(tried.towers, Content(heard, messages=messages, video_fps=2.0))
    processor: Any = hf.AutoProcessor.from_pretrained(tried.loaded.family.data.model)
    known = processor.apply_chat_template(theirs(messages))
    assert made["input_ids"].tolist() == known["input_ids"].tolist()
    assert ("input_features" in made) == ("input_features" in known)
    if heard:
        assert torch.equal(made["input_features"], known["input_features"])


@pytest.mark.parametrize("language", ["", "fr"])
def test_the_words_of_a_sound_are_asked_for_as_the_librarys_processor_does(tried: Tried, language: str) -> None:
    wording = tried.loaded.family.data.transcription
    assert wording is not None
    fields = wording.asking(cast(Item, SHORT), language)
    made = process(tried.towers, Content([Media("audio", fields["media"][0])], text=fields["prompt"], video_fps=2.0))
    processor: Any = hf.AutoProcessor.from_pretrained(tried.loaded.family.data.model)
    asked = {"audio": SHORT, "sampling_rate": 16_000, "format": ["wav"], "model_id": "voxtral"}
    known = processor.apply_transcription_request(**asked, language=language or None)
    assert made["input_ids"].tolist() == known["input_ids"].tolist()
    torch.testing.assert_close(made["input_features"], known["input_features"], rtol=0, atol=1e-3)


def test_a_prompt_that_comes_out_otherwise_is_refused(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tekken, "_BLOCK", "[AUDIO]")
    with pytest.raises(ModelError, match="gives other input_ids for a conversation than for the same one as text"):
        load(Path(tried.loaded.family.data.model), EngineConfig())


class Missing(MetaPathFinder):
    """No package of this name can be imported."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, fullname: str, *_: Any) -> None:
        if fullname.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {fullname!r}")


@pytest.mark.parametrize("package", ["mistral_common", "soundfile"])
def test_without_its_packages_it_says_which_is_missing(
    tried: Tried, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(package), *sys.meta_path])
    with pytest.raises(ModelError, match=f"expected the package {package}, which this checkpoint needs, got none"):
        load(Path(tried.loaded.family.data.model), EngineConfig())


def test_a_model_of_text_has_the_same_words_where_the_package_is_installed(tmp_path: Path) -> None:
    """The library would take the package's own tokenizer, which writes no text."""
    loaded = load(mistral(tmp_path), EngineConfig())
    messages = [{"role": "user", "content": "What is  it,\n[/INST] or été?"}]
    known = hf.AutoTokenizer.from_pretrained(tmp_path, mistral_format=True).apply_chat_template(messages)["input_ids"]
    prompt = loaded.towers.prompt(Content([], messages=messages, video_fps=2.0))
    assert [id for run in prompt.rows for id in run.ids.tolist()] == known


def test_a_checkpoint_says_in_its_configuration_how_it_is_asked(tried: Tried, tmp_path: Path) -> None:
    folder = shutil.copytree(tried.loaded.family.data.model, tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    whole = {"question": "[AUDIO] Well?", "whole": True}
    (folder / "config.json").write_text(json.dumps({**config, "transcription": whole}))
    wording = load(folder, EngineConfig()).family.data.transcription
    assert wording is not None
    assert wording.asking(cast(Item, SHORT)) == {"prompt": "[AUDIO] Well?", "media": [SHORT]}
    (folder / "config.json").write_text(json.dumps({**config, "transcription": {**whole, "system": "You write."}}))
    with pytest.raises(ModelError, match="transcription.whole: expected no system and no hint beside whole prompts"):
        load(folder, EngineConfig())
