"""No family serves rotary positions that the library scales by the longest row of a pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.engine.runner.angles import LongRotary
from penstock.errors import ModelError

from tests.fixtures.loaded import served
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


@pytest.mark.parametrize("name", ["omni", "qwen3_vl", "llama"])
def test_a_library_module_is_exact_behind_the_positions_that_it_has(name: str) -> None:
    """Before them it is what it was, to the bit."""
    text = served(name).text
    known = 1000
    long = LongRotary(text.rotary_emb, known)
    axes = 3 if name != "llama" else 1
    rows, places = torch.zeros(1, 4, 8), torch.tensor([[5, known - 1, known + 7, 300_000_001]])
    given = places if axes == 1 else places[None].expand(axes, -1, -1)
    cos, sin = long(rows, given)
    library = text.rotary_emb(rows, given)
    assert torch.equal(cos[..., :2, :], library[0][..., :2, :]) and torch.equal(sin[..., :2, :], library[1][..., :2, :])
    angles = places[0, 2:, None].double() * text.rotary_emb.inv_freq.double().repeat(2)
    torch.testing.assert_close(cos[0, 2:].double(), angles.cos(), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin[0, 2:].double(), angles.sin(), rtol=0, atol=1e-6)
    assert float((library[0][0, 3].double() - angles[1].cos()).abs().max()) > 0.1
