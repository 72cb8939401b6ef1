"""Small checkpoints in the quantisation formats of `transformers`. In: a checkpoint in floats and a format's name. Out:
a folder with the same model in that format; or what the library raises where it cannot make one here.

Some formats the library itself writes (`LIBRARY`), of others the weights are packed here (`PACKED`). Of any other there
is only the configuration, as its checkpoints have it: what a load says of that is what it says of each of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

BLOCK, WIDE = 32, 128
Tensors = dict[str, torch.Tensor]
# The towers of the models that see stay in floats here, and so does the output layer.
KEPT = ("lm_head", "visual", "model.visual", "vision_tower", "multi_modal_projector")


def _torchao(name: str, **options: Any) -> Callable[[], Any]:
    def config() -> Any:
        ao = import_module("torchao.quantization")

        return hf.TorchAoConfig(getattr(ao, name)(**options), modules_to_not_convert=list(KEPT))

    return config


LIBRARY: dict[str, Callable[[], Any]] = {
    "torchao int8": _torchao("Int8WeightOnlyConfig"),
    "torchao int8, activations too": _torchao("Int8DynamicActivationInt8WeightConfig"),
    "torchao int4": _torchao("Int4WeightOnlyConfig", group_size=BLOCK),
    "torchao fp8": _torchao("Float8WeightOnlyConfig"),
    "bitsandbytes_4bit": lambda: hf.BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=list(KEPT)),
    "bitsandbytes_8bit": lambda: hf.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(KEPT)),
    "quanto": lambda: hf.QuantoConfig(weights="int8", modules_to_not_convert=list(KEPT)),
    "hqq": lambda: hf.HqqConfig(nbits=4, group_size=BLOCK, skip_modules=list(KEPT)),
    "sinq": lambda: hf.SinqConfig(nbits=4, group_size=BLOCK, modules_to_not_convert=list(KEPT)),
}


def write(name: str, source: Path, into: Path) -> None:
    """Write the checkpoint in `source` in this format into the new folder `into`."""
    shutil.copytree(source, into, dirs_exist_ok=True)
    if name in LIBRARY:
        model = _class(source).from_pretrained(source, quantization_config=LIBRARY[name](), dtype=torch.float32)
        (into / "model.safetensors").unlink()
        model.save_pretrained(into)
        return
    settings, pack = PACKED[name]
    config = json.loads((into / "config.json").read_text())
    (into / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": name} | settings}))
    tensors = load_file(into / "model.safetensors")
    for layer in [layer.removesuffix(".weight") for layer in tensors if _is_packed(layer)]:
        weight = tensors.pop(f"{layer}.weight").float()
        tensors |= {f"{layer}.{part}": tensor.contiguous() for part, tensor in pack(weight).items()}
    save_file(tensors, into / "model.safetensors", {"format": "pt"})


def declare(name: str, source: Path, into: Path) -> None:
    """Write the checkpoint with the configuration of this format only, in place of what could not be written."""
    shutil.copytree(source, into, dirs_exist_ok=True)
    named = name.split()[0]
    settings = AUTO_QUANTIZATION_CONFIG_MAPPING[named]().to_dict() if named != "torchao" else {}
    config = json.loads((into / "config.json").read_text())
    (into / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": named} | settings}))


def even(source: Path, into: Path) -> Path:
    """The checkpoint with an MLP of 128 in place of 160: some formats want a multiple of 64."""
    shutil.copytree(source, into)
    config = json.loads((into / "config.json").read_text())
    config.get("text_config", config)["intermediate_size"] = WIDE
    (into / "config.json").write_text(json.dumps(config))
    tensors = load_file(into / "model.safetensors")
    for name in [name for name in tensors if ".mlp." in name and _is_packed(name)]:
        cut = tensors[name][:, :WIDE] if "down_proj" in name else tensors[name][:WIDE]
        tensors[name] = cut.contiguous()
    save_file(tensors, into / "model.safetensors", {"format": "pt"})
    return into


def _class(source: Path) -> Any:
    sees = hasattr(hf.AutoConfig.from_pretrained(source), "vision_config")
    return hf.AutoModelForImageTextToText if sees else hf.AutoModelForCausalLM


def _is_packed(name: str) -> bool:
    return name.endswith("_proj.weight") and not any(part in name for part in ("visual", "vision"))


def _fp8(weight: torch.Tensor) -> Tensors:
    """8-bit floats, a scale for each block."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scales = blocks.abs().amax((1, 3)) / torch.finfo(torch.float8_e4m3fn).max
    small = (blocks / scales[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
    return {"weight": small, "weight_scale_inv": scales}


def _int8(weight: torch.Tensor) -> Tensors:
    """int8 around 128, four inputs in each int32, a scale for each output."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    four = ((weight / scale).round() + 128).long().view(len(weight), -1, 4)
    packed = (four << (8 * torch.arange(4))).sum(-1).to(torch.int32)
    return {"weight_packed": packed, "weight_scale": scale, "weight_shape": torch.tensor(weight.shape)}


def _rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Four bits `(out, in)` around 8, and a scale for each group of inputs `(out, groups)`."""
    groups = weight.reshape(len(weight), -1, BLOCK)
    scales = groups.abs().amax(2) / 7
    return ((groups / scales[..., None]).round() + 8).reshape(weight.shape).int(), scales


def _nibbles(numbers: torch.Tensor, order: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)) -> torch.Tensor:
    """Eight numbers of the last axis in each int32, the first in its lowest bits, in this order."""
    eight = numbers.reshape(*numbers.shape[:-1], -1, 8)[..., list(order)].long()
    return (eight << (4 * torch.arange(8))).sum(-1).to(torch.int32)


def _gptq(weight: torch.Tensor) -> Tensors:
    """Eight inputs in each int32; of zeros 7 stands for 8."""
    numbers, scales = _rounded(weight)
    return {
        "qweight": _nibbles(numbers).t(),
        "qzeros": _nibbles(torch.full((scales.shape[1], len(weight)), 7)),
        "scales": scales.t().half(),
        "g_idx": (torch.arange(weight.shape[1]) // BLOCK).int(),
    }


def _awq(weight: torch.Tensor) -> Tensors:
    """Eight outputs in each int32, in the order that its kernels unpack."""
    numbers, scales = _rounded(weight)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return {
        "qweight": _nibbles(numbers.t(), order),
        "qzeros": _nibbles(torch.full((scales.shape[1], len(weight)), 8), order),
        "scales": scales.t().half(),
    }


def _aqlm(weight: torch.Tensor) -> Tensors:
    """One codebook of 256 rows of eight inputs, drawn from the weight itself."""
    groups = weight.reshape(len(weight), -1, 8)
    book = groups.reshape(-1, 8)[torch.linspace(0, groups.numel() // 8 - 1, 256).long()]
    codes = torch.cdist(groups.reshape(-1, 8), book).argmin(1).view(len(weight), -1, 1)
    return {
        "codes": (codes - 256 * (codes > 127)).to(torch.int8),
        "codebooks": book.view(1, 256, 1, 8),
        "scales": torch.ones(len(weight), 1, 1, 1),
    }


def _bitnet(weight: torch.Tensor) -> Tensors:
    """-1, 0 and 1, four outputs in each byte, one scale."""
    scale = weight.abs().mean()
    numbers = ((weight / scale).round().clamp(-1, 1) + 1).to(torch.uint8).view(4, -1, weight.shape[1])
    packed = numbers[0] | numbers[1] << 2 | numbers[2] << 4 | numbers[3] << 6
    return {"weight": packed, "weight_scale": scale[None]}


_GROUP = {"bits": 4, "group_size": BLOCK, "sym": True}
_WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
# What stands in config.json, and how a weight is packed.
PACKED: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor], Tensors]]] = {
    "fp8": (
        {"weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic", "modules_to_not_convert": [*KEPT]},
        _fp8,
    ),
    "gptq": ({**_GROUP, "desc_act": False, "checkpoint_format": "gptq"}, _gptq),
    "awq": ({**_GROUP, "version": "gemm", "zero_point": True, "modules_to_not_convert": [*KEPT]}, _awq),
    "auto-round": ({**_GROUP, "packing_format": "auto_round:auto_gptq"}, _gptq),
    "compressed-tensors": (
        {
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": _WEIGHTS, "format": "pack-quantized"}},
            "ignore": ["lm_head", "re:.*visual.*", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"],
        },
        _int8,
    ),
    "aqlm": (
        {
            "in_group_size": 8,
            "out_group_size": 1,
            "num_codebooks": 1,
            "nbits_per_codebook": 8,
            "linear_weights_not_to_quantize": [*KEPT, *(f"{part}.weight" for part in KEPT)],
        },
        _aqlm,
    ),
    "bitnet": (
        {"linear_class": "bitlinear", "quantization_mode": "offline", "modules_to_not_convert": [*KEPT]},
        _bitnet,
    ),
}
