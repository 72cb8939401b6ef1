"""Quantised checkpoints: what stands in the way is said before a weight is read, and what they hold is counted so.

Which formats run is in docs/quantised.md, made by tests/hub/formats.py.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from penstock.engine.config import FITTING, EngineConfig
from penstock.engine.loading.fingerprint import fingerprint
from penstock.engine.loading.forecast import forecast
from penstock.engine.loading.inner import inner
from penstock.engine.loading.int8 import quantize
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.engine.runner.takeover import take_over
from penstock.errors import ModelError
from safetensors.torch import load_file
from torch.testing._internal.two_tensor import TwoTensor
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from tests.fixtures.recipe import model_path
from tests.hub import written
from tests.hub.formats import FOUND, PAGE, names, page


def without(package: str, quantised: dict[str, Any], told: str) -> Any:
    """What is said where the package of this module is missing."""
    here = find_spec(package) is not None
    return pytest.param(quantised, told, marks=pytest.mark.skipif(here, reason=f"{package} is installed here"))


def without_cuda(method: str, told: str) -> Any:
    """What is said where there is no CUDA device."""
    here = torch.cuda.is_available()
    marks = pytest.mark.skipif(here, reason="nothing is missing where there is a CUDA device")
    return pytest.param({"quant_method": method}, told, marks=marks)


PACKAGE = "expected the package %s, which this checkpoint needs, got none"
missing = pytest.mark.parametrize(
    ("settings", "told"),
    [
        without(
            "gptqmodel",
            {"quant_method": "gptq", "bits": 4},
            "expected the packages? (optimum and )?gptqmodel, .* got none: pip install ('optimum' )?'gptqmodel'$",
        ),
        without("gptqmodel", {"quant_method": "awq"}, PACKAGE % "gptqmodel" + ": pip install 'gptqmodel'"),
        without("auto_round", {"quant_method": "auto-round"}, PACKAGE % "auto-round>=0.5" + ": pip install 'auto-"),
        without("kernels", {"quant_method": "eetq"}, PACKAGE % "kernels" + ": pip install 'kernels'"),
        without("quark", {"quant_method": "quark"}, PACKAGE % "amd-quark" + ": pip install 'amd-quark'"),
        without("sinq", {"quant_method": "sinq"}, PACKAGE % "sinq" + ": pip install 'sinq'"),
        without(
            "compressed_tensors",
            {"quant_method": "compressed-tensors"},
            "expected the package compressed-tensors>=0.15.0, which this",
        ),
        without("accelerate", {"quant_method": "fp8"}, PACKAGE % "accelerate"),
        without("torchao", {"quant_method": "torchao"}, PACKAGE % "torchao"),
        without_cuda("higgs", "expected a CUDA device, which the quantisation higgs needs, got none: HIGGS"),
        without_cuda("spqr", "expected a CUDA device, which the quantisation spqr needs, got none: GPU is"),
        (
            {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
            "quantization_config: expected keys and values as the layers give them, got kv_cache_scheme",
        ),
        ({"quant_method": "aqlm"}, "quantization_config: expected layers that give a row the same alone and beside"),
        ({"quant_method": "one_bit"}, "quantization_config: expected one of aqlm, .*, vptq, got 'one_bit'"),
        (
            {"quant_method": "nvfp4"},
            "quantization_config: expected one that can be loaded here, got nvfp4: Loading",
        ),
    ],
)


def declared(folder: Path, name: str, settings: dict[str, Any]) -> Path:
    """A checkpoint that says so of itself; its weights cannot be read."""
    shutil.copytree(model_path(name), folder)
    (folder / "model.safetensors").write_bytes(b"nobody reads this")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return folder


@missing
@pytest.mark.parametrize("name", ["text", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)])
def test_what_is_missing_is_said_before_a_weight_is_read(
    tmp_path: Path, name: str, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ModelError, match=f"^{tmp_path}/model: {told}"):
        load(declared(tmp_path / "model", name, settings), EngineConfig())


def test_a_quantised_tensor_is_counted_by_what_it_holds_and_left_as_it_is() -> None:
    """`TwoTensor` stands for one: it passes for floats and holds two tensors. The decoder is not taken over, and no
    layer of it becomes int8."""
    loaded = load(model_path("text"), EngineConfig())
    before, own = weight_bytes(loaded), fingerprint(loaded.text, loaded.head, loaded.config)
    layer = loaded.text.layers[0].mlp.down_proj
    held = layer.weight.detach()
    layer.weight = torch.nn.Parameter(TwoTensor(held, held + 1), requires_grad=False)
    assert [part.data_ptr() for part in inner(layer.weight)][0] == held.data_ptr()
    assert weight_bytes(loaded) == before + held.nbytes
    assert fingerprint(loaded.text, loaded.head, loaded.config) != own
    assert take_over(loaded._replace(fast=None)).fast is None
    layers = sum(type(one) is torch.nn.Linear for one in loaded.text.modules())
    assert quantize(loaded.text) == layers - 1 and type(layer) is torch.nn.Linear


def test_a_plan_for_another_machine_takes_quantised_weights_from_their_files(tmp_path: Path) -> None:
    """This one has no package for them. Of four bits half a byte is left, and a scale for each group of 32."""
    written.write("gptq", model_path("text"), tmp_path / "model")
    config = msgspec.structs.replace(FITTING, device="cuda", dtype="bfloat16")
    small, floats = (forecast(folder, config, elsewhere=1 << 34) for folder in (tmp_path / "model", model_path("text")))
    layers = sum(
        weight.numel()
        for name, weight in load_file(model_path("text") / "model.safetensors").items()
        if "_proj.w" in name
    )
    saved = floats.memory.weight_bytes - small.memory.weight_bytes
    assert 1.2 * layers < saved < 1.5 * layers
    assert small.memory.pages > floats.memory.pages


def test_the_page_has_a_line_for_each_format() -> None:
    found = json.loads(FOUND.read_text())
    assert {*found} <= {*names()}
    assert {name.split()[0] for name in names()} == {*AUTO_QUANTIZATION_CONFIG_MAPPING}
    assert PAGE.read_text(encoding="utf-8") == page(found)
