"""What a refusal for lack of memory advises is true."""

from __future__ import annotations

import re
from typing import Any

import pytest
from penstock.codecs.errors import ModelError
from penstock.engine import memory as memory_module
from penstock.engine.brook.recipe import model_path
from penstock.engine.config import EngineConfig
from penstock.engine.core import fit, load
from penstock.engine.family import Loaded
from penstock.engine.out_of_memory import NoRoom


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["omni", "qwen2_5_vl"])
def test_a_refusal_advises_pixels_that_fit(name: str, share: float, free: dict[str, int | None]) -> None:
    """About the most that do: who takes the advice is served, and a tenth more is refused."""
    loaded = load(model_path(name), EngineConfig())
    factor = loaded.family.spec.image.factor**2  # type: ignore[union-attr]

    def config(most: int) -> EngineConfig:
        options = {"min_pixels": 4 * factor, "max_pixels": most}
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
    assert fit(loaded, config(int(advice[1]))).tokens >= 1024
    with pytest.raises(ModelError):
        fit(loaded, config(int(advice[1]) * 11 // 10 + factor))


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
    whole = memory_module.worst_case
    bound = loaded.family.spec.image.max_pixels // 3  # type: ignore[union-attr]

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
