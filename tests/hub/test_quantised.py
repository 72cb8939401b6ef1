"""A checkpoint of 8-bit floats (fine-grained FP8, as DeepSeek and Qwen publish them), with the package that the library
asks for, in a process of its own: what is said over pages is what the library says. Slow: it installs that package.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures.recipe import model_path

BLOCK = 32
ROOT = Path(__file__).parents[2]
TALK = """
import sys
import torch, transformers
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from tests.engine.rig import Rig
folder = sys.argv[1]
loaded = load(folder, EngineConfig(dtype="auto"))
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=loaded.dtype)
rig = Rig(loaded, page_tokens=4)
session = rig.open()
session.ask("What do you see?", max_tokens=8)
rig.run()
ids, _ = session.transcript()
with torch.inference_mode():
    logits = model(torch.tensor([ids])).logits[0].float()
assert len(session.draws) >= 8
for row, (token, drawn) in session.draws.items():
    assert float((drawn.float() - logits[row]).abs().max()) < 0.05 * float(logits[row].abs().max()), row
print(loaded.dtype)
"""


def quantise(folder: Path) -> None:
    """The linear layers of the decoder as 8-bit floats, with a scale for each block."""
    config = json.loads((folder / "config.json").read_text())
    settings = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings, "dtype": "bfloat16"}))
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors[name].shape
        blocks = tensors[name].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scales = blocks.abs().amax((1, 3)) / torch.finfo(torch.float8_e4m3fn).max
        small = (blocks / scales[:, None, :, None]).reshape(rows, columns)
        tensors[name] = small.to(torch.float8_e4m3fn)
        tensors[name.replace("weight", "weight_scale_inv")] = scales
    floats = {name: tensor.bfloat16() if tensor.ndim == 1 else tensor for name, tensor in tensors.items()}
    save_file(floats, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.slow
def test_eight_bit_floats_are_loaded_as_the_library_loads_them(tmp_path: Path) -> None:
    folder, packages = tmp_path / "model", tmp_path / "packages"
    shutil.copytree(model_path("text"), folder)
    quantise(folder)
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", str(packages)]
    subprocess.run([sys.executable, *install, "accelerate>=1.10", "psutil"], check=True, timeout=200)
    paths = os.pathsep.join([str(packages), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", TALK, str(folder)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() in ("torch.float32", "torch.bfloat16")
