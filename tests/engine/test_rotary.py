"""No family serves rotary positions that the library scales by the longest row of a pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.errors import ModelError

from tests.fixtures.recipe import model_path
from tests.hub.layout import publish_omni

NAMES = [
    "text", "qwen3", "llama", "gemma3_text", "llava", "llava_onevision", "gemma3", "smolvlm",
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "omni", "qwen3_omni",
]  # fmt: skip
STRETCHED = {
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "longrope": {"rope_type": "longrope", "original_max_position_embeddings": 64, "factor": 512.0},
}


def decoder(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that is the decoder's."""
    config = config.get("thinker_config", config)
    return config.get("text_config", config)


def turned(folder: Path, kind: str, **more: Any) -> Path:
    """The checkpoint with rotary positions of this kind."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    own = decoder(config)
    rules = own["rope_parameters"]
    half = own.get("head_dim", own["hidden_size"] // own["num_attention_heads"]) // 2
    factors = {"short_factor": [1.0] * half, "long_factor": [2.0] * half} if kind == "longrope" else {}
    for rule in [rule for rule in rules.values() if isinstance(rule, dict)] or [rules]:
        rule |= STRETCHED[kind] | factors | more
    file.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", STRETCHED)
@pytest.mark.parametrize("name", NAMES)
def test_positions_that_others_stretch_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_path(name), folder)
    (folder / "model.safetensors").unlink()  # before a weight is read
    with pytest.raises(ModelError, match=rf"is not served: .*change with a stream's length, got '{kind}'; served are"):
        load(turned(folder, kind), EngineConfig())


def test_those_of_a_whole_omni_are_its_thinkers(tmp_path: Path) -> None:
    publish_omni(tmp_path)
    with pytest.raises(ModelError, match="do not change with a stream's length, got 'dynamic'"):
        load(turned(tmp_path, "dynamic"), EngineConfig())


def test_long_positions_within_the_length_that_was_learnt_are_served(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_path("llama"), folder)
    longest = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    turned(folder, "longrope", original_max_position_embeddings=longest, factor=1.0)
    assert load(folder, EngineConfig()).family.max_positions == longest
