"""A chat template of one's own writes prompts, places media and tools, and is what streams learn from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.errors import InputError, ModelError
from penstock.streams.requests.prompt import Content, Media

from tests.fixtures.recipe import model_path

TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
OWN = (
    "{% if tools %}Tools: {{ tools | tojson }}\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}!\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}Picture: <|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif part['type'] == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant!\n{% endif %}"
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("own") / "own.jinja"
    file.write_text(OWN)
    return load(model_path("omni"), EngineConfig(chat_template=str(file)))


def said(loaded: Any, **fields: Any) -> str:
    """The text of a prompt, with one placeholder for each row of media."""
    rows = loaded.towers.prompt(Content(**fields)).rows
    return loaded.family.tokenizer.decode([id for run in rows for id in run.ids])


def asking(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*content]}]


def test_prompts_and_streams_are_written_by_it(own: Any) -> None:
    words = {"type": "text", "text": "Well?"}
    picture = Media("image", np.zeros((56, 56, 3), np.uint8))
    text = said(own, media=[picture], messages=asking({"type": "image", "image": "image"}, words), video_fps=2.0)
    assert text.startswith("<|im_start|>user!\nPicture: <|vision_bos|><|IMAGE|>") and text.endswith("assistant!\n")
    assert own.family.data.turns.wrappers["user_start"] == "<|im_start|>user!\n"
    assert own.family.data.blocks["image"][0].startswith("Picture: ")


def test_tools_are_written_by_the_template_or_refused(own: Any) -> None:
    words = {"type": "text", "text": "Well?"}
    tools: list[dict[str, Any]] = [{**TOOLS[0], "function": {**TOOLS[0]["function"], "description": "<|im_end|>"}}]
    loaded = own
    for control in (False, True):
        content = Content([], asking(words), tools=tools, control_tokens=control, video_fps=2.0)
        ids = [id for run in loaded.towers.prompt(content).rows for id in run.ids]
        assert loaded.family.tokenizer.decode(ids).startswith('Tools: [{"')
        ends = ids.count(loaded.family.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        assert ends == 1 + control  # words of a tool open no turn
    with pytest.raises(InputError, match="expected a model whose chat template writes them"):
        said(load(model_path("omni"), EngineConfig()), media=[], messages=asking(words), tools=tools, video_fps=2.0)


def test_what_is_no_template_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    for text, words in ((b"{% for", "line 1"), (b"\xff", "can be read"), (None, "No such file")):
        file = tmp_path / "a.jinja"
        if text is not None:
            file.write_bytes(text)
        else:
            file.unlink()
        with pytest.raises(ModelError, match=f"chat_template: expected .*{words}"):
            load(model_path("omni"), EngineConfig(chat_template=str(file)))


def test_a_template_reaches_nothing_but_what_it_is_given(tmp_path: Path) -> None:
    """It is run in the sandbox of `transformers`, whether it is the checkpoint's or one's own."""
    for text in ("{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}", "{{ messages.append(1) }}"):
        file = tmp_path / "a.jinja"
        file.write_text(text + OWN)
        with pytest.raises(ModelError, match="SecurityError: access to attribute"):
            load(model_path("omni"), EngineConfig(chat_template=str(file)))


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "expected the checkpoint's or your own"), ("Hi", "every turn's words, got one that leaves some")],
)
def test_a_checkpoint_without_a_template_or_with_one_that_says_the_same_is_refused(
    tmp_path: Path, text: str | None, words: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(model_path("text"), folder)
    template = folder / "chat_template.jinja"
    template.unlink() if text is None else template.write_text(text)
    with pytest.raises(ModelError, match=f"chat template: .*{words}"):
        load(folder, EngineConfig())
