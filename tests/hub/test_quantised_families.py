"""Quantised checkpoints of the families that are served by name are the library's own models of the same weights, their
towers too. Formats whose packages are missing are skipped.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.loading import compute
from penstock.engine.loading.compute import amount
from penstock.engine.loading.first_run import check_runs
from penstock.engine.loading.forecast import forecast
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.errors import ModelError
from penstock.streams.requests.request import Request, SamplingParams
from safetensors.torch import load_file, save_file

from tests.engine.test_oracle1 import generated, image, turn
from tests.fixtures.recipe import model_path
from tests.hub import written
from tests.hub.formats import EXACT, FAMILIES, SHARE
from tests.hub.one_format import SOUND, compared

# Modules that a format needs beside accelerate, by its first word.
MODULES = {
    "awq": ("gptqmodel",),
    "bitsandbytes_4bit": ("bitsandbytes",),
    "bitsandbytes_8bit": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "gptq": ("optimum", "gptqmodel"),
    "torchao": ("torchao",),
}
FORMATS = (
    *("fp8", "bitnet", "bitsandbytes_4bit", "bitsandbytes_8bit", "torchao int8", "torchao int8, activations too"),
    *("torchao int4", "torchao fp8", "gptq", "awq", "compressed-tensors int8", "compressed-tensors int4"),
    *("compressed-tensors int8, activations too", "compressed-tensors fp8, activations too"),
)
# What is said of checkpoints that the library, or its kernels, do not take.
REFUSED = {
    "bitsandbytes_4bit": "must be divisible by",
    "compressed-tensors": "object has no attribute 'weight'",
    "gptq": "Block pattern could not be match",
}
DECODER_ALONE = ("gptq", "awq")  # these small towers are no multiples of their groups
QUICK = {
    ("fp8", "qwen3_omni", True),
    ("compressed-tensors int4", "qwen2_5_vl", True),
    ("compressed-tensors int8, activations too", "smolvlm", False),
}
# Torch's warnings about what packages do, and theirs about each other.
pytestmark = pytest.mark.filterwarnings("default")


def need(format: str) -> None:
    """Skip where a package of the format is missing."""
    for module in ("accelerate", *MODULES.get(format.split()[0], ())):
        if find_spec(module) is None:
            pytest.skip(f"the package {module} is not installed")


def quantised(folder: Path, format: str, name: str, towers: bool) -> tuple[Path, Path]:
    """The model in floats and in the format."""
    need(format)
    source = written.even(model_path(name), folder / "floats")
    written.write(format, source, folder / "model", towers)
    return source, folder / "model"


def marked(format: str, name: str, towers: bool) -> Any:
    marks = [] if (format, name, towers) in QUICK else [pytest.mark.slow]
    return pytest.param(format, name, towers, marks=marks)


@pytest.mark.parametrize(
    ("format", "name", "towers"),
    [
        marked(format, name, towers)
        for format in FORMATS
        for name in FAMILIES
        for towers in (False, True)
        if not (towers and format in DECODER_ALONE)
    ],
)
def test_it_is_the_librarys_model(format: str, name: str, towers: bool, tmp_path: Path) -> None:
    """In a stream with media in the middle of a reply, and in one shot; or it is refused in the library's own words."""
    source, folder = quantised(tmp_path, format, name, towers)
    try:
        loaded = load(folder, EngineConfig(dtype="auto"))
    except ModelError as error:
        told = REFUSED.get(format.split()[0])
        assert told is not None and told in str(error) and (towers or (format, name) == ("gptq", "smolvlm"))
        return
    found = compared(loaded, folder, source, "image", name in SOUND)
    assert 0 < found["cost"] and found["gap"] <= max(EXACT, SHARE * found["cost"])
    assert found["gap"] > EXACT or found["same"][0] == found["same"][1]


@pytest.mark.parametrize("format", ["fp8", "compressed-tensors int4"])
def test_what_a_whole_omni_says_of_its_weights_holds_for_its_thinker(format: str, tmp_path: Path) -> None:
    """Where only the whole says it, and by names that begin at the whole."""
    _, folder = quantised(tmp_path, format, "omni", False)
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    config = json.loads((folder / "config.json").read_text())
    settings = json.dumps(config.pop("quantization_config")).replace(".*visual", "thinker.*visual")
    named = {"model_type": "qwen2_5_omni", "thinker_config": config, "enable_audio_output": False, "dtype": "float32"}
    (whole / "config.json").write_text(json.dumps(named | {"quantization_config": json.loads(settings)}))
    tensors = load_file(folder / "model.safetensors")
    renamed = {f"thinker.{key}": tensor for key, tensor in tensors.items()}
    save_file(renamed, whole / "model.safetensors", {"format": "pt"})
    one, other = (load(path, EngineConfig(dtype="auto")) for path in (folder, whole))
    assert weight_bytes(one) == weight_bytes(other) == forecast(whole, EngineConfig(dtype="auto")).memory.weight_bytes
    messages = [turn(("image", image), "What do you see?")]
    asked = Request(messages=messages, positions="transformers", params=SamplingParams(max_tokens=8))
    (ids, logits, _), (same, theirs, _) = generated(one, asked), generated(other, asked)
    assert ids == same
    torch.testing.assert_close(torch.stack(logits), torch.stack(theirs), rtol=0, atol=1e-4)


def test_room_is_looked_for_as_floats_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are put into floats when they are loaded take more than their files."""
    source, folder = quantised(tmp_path, "compressed-tensors int4", "qwen2_5_vl", False)
    packed, floats = ((one / "model.safetensors").stat().st_size for one in (folder, source))
    monkeypatch.setattr(compute, "free_bytes", lambda device: (packed + floats) // 2)
    with pytest.raises(ModelError, match=f"needs {amount(floats)} for weights in float32"):
        load(folder, EngineConfig())


def test_scales_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    """Without its settings the library takes the packed numbers for weights, and only warns."""
    _, folder = quantised(tmp_path, "fp8", "qwen2_vl", False)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="expected a quantization_config that tells of its scales, got none for model"):
        load(folder, EngineConfig())


def test_layers_that_do_not_run_are_refused_before_they_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that take some shapes only say so when they are called: of the decoder, and of the towers."""
    loaded = load(model_path("qwen2_vl"), EngineConfig())
    check_runs(loaded)

    def never(rows: torch.Tensor) -> torch.Tensor:
        raise AssertionError("N must be divisible by 32")

    towers: Any = loaded.towers
    for layer in (loaded.text.norm, towers.model.visual.blocks[0].mlp.fc1):
        with monkeypatch.context() as patch:
            patch.setattr(layer, "forward", never)
            with pytest.raises(
                ModelError, match="expected quantised layers that run here, got: N must be divisible by"
            ):
                check_runs(loaded._replace(fast=None))
