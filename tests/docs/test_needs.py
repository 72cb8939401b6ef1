"""What the README says that its model of the Hub needs is what `penstock plan` says for a model of these sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pages import ROOT
from penstock.engine.config import EngineConfig
from penstock.engine.loading.compute import amount
from penstock.engine.loading.forecast import forecast
from penstock.engine.loading.memory import Memory

from tests.fixtures.recipe import model_path

GIB = 2**30
# From config.json and preprocessor_config.json of Qwen/Qwen2.5-VL-3B-Instruct.
LANGUAGE = {
    "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
    "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 128000, "tie_word_embeddings": True,
    "layer_types": ["full_attention"] * 36,
}  # fmt: skip
ROTARY = {"mrope_section": [16, 24, 24], "rope_theta": 1e6}
VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
    "fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112, "tokens_per_second": 2,
}  # fmt: skip
MAX_PIXELS = 12_845_056


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model's folder with the sizes of the large one."""
    folder = tmp_path_factory.mktemp("sized") / "model"
    shutil.copytree(model_path("qwen2_5_vl"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": "bfloat16", "tie_word_embeddings": True}
    config["text_config"] |= LANGUAGE
    config["text_config"]["rope_parameters"] |= ROTARY
    config["vision_config"] |= VISION
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "processor_config.json").read_text())
    for part in ("image_processor", "video_processor"):
        processor[part]["size"]["longest_edge"] = MAX_PIXELS
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


def plan(folder: Path, dtype: str, **processor: bool | int | float) -> Memory:
    config = EngineConfig(device="cpu", dtype=dtype, kv_tokens=0, processor=processor)
    return forecast(folder, config, elsewhere=64 * GIB).memory


def test_the_readme_says_what_its_model_needs(sized: Path) -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    full, small, wide = plan(sized, "bfloat16"), plan(sized, "bfloat16", max_pixels=10**6), plan(sized, "float32")
    parts = (full.weight_bytes, full.step_bytes, full.encoder_bytes, full.kv_bytes)
    assert f"{sum(parts) / GIB:.1f} GiB of memory in bfloat16" in text
    weights, step, encoder, cache = (amount(size).removesuffix(" GiB") for size in parts)
    assert f"{weights} for the weights, {step} for the largest step, {encoder} for the largest picture" in text
    assert f"({amount(small.encoder_bytes).removesuffix(' GiB')} with `--max-pixels 1000000`)" in text
    assert f"{cache} for a cache of {full.tokens:,} rows" in text
    assert f"the weights need {amount(wide.weight_bytes).removesuffix(' GiB')}" in text
