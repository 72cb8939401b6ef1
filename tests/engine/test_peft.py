"""An adapter that peft itself has written: what a stream says that wears it is what peft's own merged model says."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.errors import InputError
from penstock.streams.requests.request import Request, SamplingParams

from tests.fixtures.adapters import ATTENTION, MLP
from tests.fixtures.loaded import plain, served

from .test_adapters import IMAGE, one_shot
from .test_oracle1 import REPLY, assert_equal, stock, turn

peft = pytest.importorskip("peft", reason="the package peft is not installed")

LAYERS = [*ATTENTION, *MLP]
PATTERNS = {"rank_pattern": {"q_proj": 2, "down_proj": 6}, "alpha_pattern": {"v_proj": 3}}


def write(folder: Path, name: str, **said: Any) -> Any:
    """An adapter over a copy of the model, trained by nobody, saved by peft; and the model with it merged."""
    torch.manual_seed(1)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": LAYERS, "task_type": "CAUSAL_LM", **said})
    model = peft.get_peft_model(copy.deepcopy(plain(name)[0]), config)
    for key, weight in model.named_parameters():
        if "lora_B" in key:  # peft begins with zeros
            torch.nn.init.normal_(weight, std=0.15)
    model.save_pretrained(folder)
    return model.merge_and_unload().eval()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen3_vl", PATTERNS),
        ("omni", {"target_modules": "all-linear", "use_rslora": True, "lora_alpha": 7, "lora_dropout": 0.1}),
        pytest.param("llava", {}, marks=pytest.mark.slow),
        pytest.param("gemma3", {"target_modules": "all-linear"}, marks=pytest.mark.slow),
        pytest.param("smolvlm", PATTERNS, marks=pytest.mark.slow),
        pytest.param(
            "qwen2_5_vl", {"target_modules": r".*(visual|layers).*(q_proj|v_proj|qkv)"}, marks=pytest.mark.slow
        ),
    ],
)
def test_what_peft_has_written(name: str, said: dict[str, Any], tmp_path: Path) -> None:
    merged = write(tmp_path / "adapter", name, **said)
    core = Core(served(name), EngineConfig(kv_tokens=2048, backend="cpu"))
    core.load_adapter("a", tmp_path / "adapter")
    messages = [turn(("image", IMAGE), "What do you see?")]
    request = Request(messages=messages, positions="transformers", params=SamplingParams(max_tokens=REPLY), adapter="a")
    try:
        assert_equal(one_shot(core, 2_000_000, request), stock(merged, plain(name)[1], messages))
    finally:
        core.language.adapters.clear()


def test_what_peft_writes_beside_plain_lora_is_refused(tmp_path: Path) -> None:
    """By its own words for it."""
    core = Core(served("text"), EngineConfig(kv_tokens=2048, backend="cpu"))
    for number, (said, told) in enumerate(
        [
            ({"use_dora": True}, "use_dora: expected none, got True"),
            ({"modules_to_save": ["lm_head"]}, "modules_to_save: expected none"),
            ({"bias": "lora_only"}, "bias: expected none, got 'lora_only'"),
        ]
    ):
        write(tmp_path / str(number), "text", **said)
        with pytest.raises(InputError, match=told):
            core.load_adapter("a", tmp_path / str(number))
