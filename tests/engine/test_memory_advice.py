"""What a refusal for lack of memory advises is true."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from penstock.engine.config import FITTING, EngineConfig
from penstock.engine.core import fit
from penstock.engine.family import Loaded
from penstock.engine.loading import memory as memory_module
from penstock.engine.loading.forecast import forecast
from penstock.engine.loading.open import load
from penstock.engine.loading.worst import worst_case
from penstock.engine.runner.out_of_memory import NoRoom
from penstock.errors import ModelError

from tests.fixtures.recipe import model_path


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["omni", "qwen2_5_vl"])
def test_a_refusal_advises_pixels_that_fit(name: str, share: float, free: dict[str, int | None]) -> None:
    """About the most that do: who takes the advice is served and has room for one such picture, which a tenth more has
    not."""
    loaded = load(model_path(name), EngineConfig())
    rule = loaded.family.spec.image
    assert rule is not None
    factor = rule.factor**2

    def config(most: int) -> EngineConfig:
        options: dict[str, bool | int | float] = {"min_pixels": 4 * factor, "max_pixels": most}
        return EngineConfig(kv_tokens=0, encoder_tokens=1, processor=options)

    largest = 4096 * factor
    least, most = (fit(loaded, config(bound)) for bound in (64 * factor, largest))
    cache = 2 * 1024 * most.token_bytes
    free["cpu"] = (
        most.step_bytes + cache + int(least.encoder_bytes + share * (most.encoder_bytes - least.encoder_bytes))
    )
    with pytest.raises(ModelError, match=r"free on cpu beside the weights; try ") as refused:
        fit(loaded, config(largest))
    advice = re.search(r"try --processor max_pixels=(\d+), --quantize int8 or a smaller model$", str(refused.value))
    assert advice
    rows = int(advice[1]) // factor
    assert fit(loaded, config(rows * factor)).tokens >= rows + 1024
    more = rows * 11 // 10 + 1
    with contextlib.suppress(ModelError):
        assert fit(loaded, config(more * factor)).tokens < more + 1024


def test_a_refusal_advises_no_pixels_where_none_fit(text_loaded: Loaded, free: dict[str, int | None]) -> None:
    """Nor what holds already."""
    omni = load(model_path("omni"), EngineConfig())
    free["cpu"] = 1000
    for loaded in (text_loaded, omni):
        with pytest.raises(ModelError, match="beside the weights; try --quantize int8 or a smaller model$"):
            fit(loaded, EngineConfig(kv_tokens=0))
        with pytest.raises(ModelError, match="beside the weights; try a smaller model$"):
            fit(loaded, EngineConfig(kv_tokens=0, quantize="int8"))


def test_pixels_are_advised_too_where_the_largest_turn_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card, where it is run."""
    loaded = load(model_path("omni"), EngineConfig())
    whole = worst_case
    rule = loaded.family.spec.image
    assert rule is not None
    bound = rule.max_pixels // 3

    def ran(loaded: Loaded, config: EngineConfig, backend: Any) -> tuple[int, int]:
        step, encoder = whole(loaded, config, backend)
        if config.processor.get("max_pixels", 1 << 30) > bound:
            raise NoRoom("needs more memory than is free")
        return step, encoder

    monkeypatch.setattr(memory_module, "worst_case", ran)
    with pytest.raises(ModelError, match=r"^needs more memory than is free; try --processor max_pixels=\d+, ") as told:
        fit(loaded, EngineConfig(kv_tokens=0))
    advised = int(re.findall(r"max_pixels=(\d+)", str(told.value))[0])
    assert bound * 0.8 < advised <= bound
    assert fit(loaded, EngineConfig(kv_tokens=0, processor={"max_pixels": advised})).tokens > 1024


def test_a_model_of_seven_billion_fits_a_card_of_24_gib_with_what_is_advised(tmp_path: Path) -> None:
    """The sizes of Qwen2.5-VL-7B, whose card says 8.29 billion numbers, and the bounds of its own processor."""
    shutil.copytree(model_path("qwen2_5_vl"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    config, processor = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("config", "processor_config"))
    config["dtype"] = config["text_config"]["dtype"] = config["vision_config"]["dtype"] = "bfloat16"
    config["text_config"] |= {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "layer_types": ["full_attention"] * 28,
    }  # fmt: skip
    config["text_config"]["rope_parameters"]["mrope_section"] = [16, 24, 24]
    config["vision_config"] |= {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
    }  # fmt: skip
    for kind in ("image_processor", "video_processor"):
        processor[kind]["size"] = {"shortest_edge": 3136, "longest_edge": 12_845_056}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "processor_config.json").write_text(json.dumps(processor))
    with pytest.raises(ModelError, match=r"free on cuda beside the weights; try --processor max_pixels=\d+, ") as told:
        forecast(tmp_path, FITTING, elsewhere=24 << 30)
    advised = int(re.findall(r"max_pixels=(\d+)", str(told.value))[0])
    found = forecast(tmp_path, msgspec.structs.replace(FITTING, processor={"max_pixels": advised}), elsewhere=24 << 30)
    assert advised > 2_000_000 and found.memory.tokens > advised // 28**2
    assert found.memory.weight_bytes == pytest.approx(2 * 8.29e9, rel=1e-3)
    assert found.memory.token_bytes == 2 * 28 * 4 * 128 * 2
