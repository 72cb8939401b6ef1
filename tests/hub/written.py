"""Small checkpoints in the quantisation formats of `transformers`. In: a checkpoint in floats and a format's name. Out:
a folder with the same model in that format; or what the library raises where it cannot make one here.

Some formats the library itself writes (`LIBRARY`), of others the weights are packed here (`PACKED`). Of any other there
is only the configuration, as its checkpoints have it: what a load says of that is what it says of each of them.
"""

from __future__ import annotations

import json
import re
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
FINE = 16  # a block or a group that divides the small towers' sizes too
Tensors = dict[str, torch.Tensor]
Kept = list[str]
# What stays in floats: the output layer, and the towers where they are not to be written in the format, by patterns.
HEAD = ["lm_head"]
TOWERS = [".*visual", ".*vision_tower", ".*vision_model", ".*audio_tower", ".*multi_modal_projector", ".*connector"]
THINKERS = {
    "qwen2_5_omni_thinker": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeThinkerForConditionalGeneration",
}


def _torchao(name: str, **options: Any) -> Callable[[Kept], Any]:
    def config(kept: Kept) -> Any:
        ao = import_module("torchao.quantization")
        made = {key: value(ao) if callable(value) else value for key, value in options.items()}
        return hf.TorchAoConfig(getattr(ao, name)(**made), modules_to_not_convert=kept)

    return config


# Formats that the library writes, each given what stays in floats.
LIBRARY: dict[str, Callable[[Kept], Any]] = {
    "torchao int8": _torchao("Int8WeightOnlyConfig"),
    "torchao int8, activations too": _torchao("Int8DynamicActivationInt8WeightConfig"),
    # `Int4WeightOnlyConfig` is written and run on CUDA alone.
    "torchao int4": _torchao(
        "IntxWeightOnlyConfig",
        weight_dtype=torch.int4,  # pyright: ignore[reportAttributeAccessIssue]
        granularity=lambda ao: ao.PerGroup(FINE),
    ),
    "torchao fp8": _torchao("Float8WeightOnlyConfig"),
    "bitsandbytes_4bit": lambda kept: hf.BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=kept),
    "bitsandbytes_8bit": lambda kept: hf.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept),
    "quanto": lambda kept: hf.QuantoConfig(weights="int8", modules_to_not_convert=kept),
    "hqq": lambda kept: hf.HqqConfig(nbits=4, group_size=BLOCK, skip_modules=kept),
    "sinq": lambda kept: hf.SinqConfig(nbits=4, group_size=BLOCK, modules_to_not_convert=kept),
}


def write(name: str, source: Path, into: Path, towers: bool = False) -> None:
    """Write the checkpoint in `source` in this format into the new folder `into`. `towers`: its towers too."""
    shutil.copytree(source, into, dirs_exist_ok=True)
    kept = HEAD if towers else HEAD + TOWERS
    if name in LIBRARY:
        config = LIBRARY[name](kept)
        model = model_class(source).from_pretrained(source, quantization_config=config, dtype=torch.float32)
        (into / "model.safetensors").unlink()
        model.save_pretrained(into)
        return
    settings, pack = PACKED[name]
    _say(into, {"quant_method": name.split()[0], **settings(kept)})
    model = model_class(source).from_pretrained(source, dtype=torch.float32)
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    for layer, module in model.named_modules():
        if type(module) is torch.nn.Linear and not any(re.search(pattern, layer) for pattern in kept):
            weight = tensors.pop(f"{layer}.weight")
            tensors |= {f"{layer}.{part}": tensor.contiguous() for part, tensor in pack(weight).items()}
    save_file(tensors, into / "model.safetensors", {"format": "pt"})


def declare(name: str, source: Path, into: Path) -> None:
    """Write the checkpoint with the configuration of this format only, in place of what could not be written."""
    shutil.copytree(source, into, dirs_exist_ok=True)
    named = name.split()[0]
    settings: dict[str, Any] = {}
    if name in PACKED:
        settings = PACKED[name][0](HEAD + TOWERS)
    elif named == "quark":  # the library makes no configuration of it without its package
        settings = {"export": {}, "global_quant_config": {}}
    elif named != "torchao":
        settings = AUTO_QUANTIZATION_CONFIG_MAPPING[named]().to_dict()
    _say(into, {"quant_method": named, **settings})


def _say(folder: Path, settings: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))


def even(source: Path, into: Path) -> Path:
    """The checkpoint with an MLP of 128 in place of 160: some formats want a multiple of 64."""
    shutil.copytree(source, into)
    config = json.loads((into / "config.json").read_text())
    config.get("text_config", config)["intermediate_size"] = WIDE
    (into / "config.json").write_text(json.dumps(config))
    tensors = load_file(into / "model.safetensors")
    for name in [name for name in tensors if re.search(r"(?<!blocks)\.\d+\.mlp\..*_proj\.weight$", name)]:
        cut = tensors[name][:, :WIDE] if "down_proj" in name else tensors[name][:WIDE]
        tensors[name] = cut.contiguous()
    save_file(tensors, into / "model.safetensors", {"format": "pt"})
    return into


def model_class(source: Path) -> Any:
    """The library's class for the checkpoint."""
    config = hf.AutoConfig.from_pretrained(source)
    if config.model_type in THINKERS:
        return getattr(hf, THINKERS[config.model_type])
    return hf.AutoModelForImageTextToText if hasattr(config, "vision_config") else hf.AutoModelForCausalLM


def library_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The library's own model of a checkpoint. Weights that it puts into floats at the first forward pass are put so
    now: `generate` asks for towers before it."""
    model = model_class(folder).from_pretrained(folder, dtype=dtype).eval()
    if hasattr(model, "ct_decompress_hook"):
        for module in model.modules():
            import_module("compressed_tensors.compressors").decompress_module(module)
        model.ct_decompress_hook.remove()
    return model


def processor(folder: Path) -> Any:
    """Its processor, or its tokenizer where it takes words only."""
    config = hf.AutoConfig.from_pretrained(folder)
    sees = config.model_type in THINKERS or hasattr(config, "vision_config")
    return (hf.AutoProcessor if sees else hf.AutoTokenizer).from_pretrained(folder)


def _fp8(weight: torch.Tensor) -> Tensors:
    """8-bit floats, a scale for each block."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows // FINE, FINE, columns // FINE, FINE)
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


def _eight(weight: torch.Tensor) -> Tensors:
    """int8, a scale for each output."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale}


def _eight_floats(weight: torch.Tensor) -> Tensors:
    """8-bit floats, a scale for each output."""
    scale = weight.abs().amax(1, keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
    return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale}


def _four(weight: torch.Tensor) -> Tensors:
    """Four bits around 8, eight inputs in each int32, a scale for each group of inputs."""
    groups = weight.reshape(len(weight), -1, FINE)
    scales = groups.abs().amax(2) / 7
    numbers = ((groups / scales[..., None]).round() + 8).reshape(weight.shape)
    return {"weight_packed": _nibbles(numbers), "weight_scale": scales, "weight_shape": torch.tensor(weight.shape)}


def _compressed(format: str, weights: dict[str, Any], inputs: dict[str, Any] | None = None) -> Callable[[Kept], Any]:
    """The configuration of compressed-tensors for all linear layers."""

    def config(kept: Kept) -> dict[str, Any]:
        group = {"targets": ["Linear"], "weights": {"symmetric": True, "dynamic": False, **weights}, "format": format}
        if inputs is not None:
            group["input_activations"] = {"symmetric": True, "dynamic": True, "strategy": "token", **inputs}
        ignored = [f"re:{pattern.removeprefix('.*').join(['.*', '.*'])}" for pattern in kept]
        return {
            "format": format,
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ignored,
        }

    return config


_GROUP = {"bits": 4, "group_size": BLOCK, "sym": True}
_INT8, _FP8 = ({"num_bits": 8, "type": type} for type in ("int", "float"))
_CHANNEL = {"strategy": "channel"}
# What stands in config.json, given what stays in floats, and how a weight is packed.
PACKED: dict[str, tuple[Callable[[Kept], dict[str, Any]], Callable[[torch.Tensor], Tensors]]] = {
    "fp8": (
        lambda kept: {
            "weight_block_size": [FINE, FINE],
            "activation_scheme": "dynamic",
            "modules_to_not_convert": kept,
        },
        _fp8,
    ),
    "gptq": (lambda kept: {**_GROUP, "desc_act": False, "checkpoint_format": "gptq"}, _gptq),
    "awq": (
        lambda kept: {**_GROUP, "version": "gemm", "zero_point": True, "modules_to_not_convert": kept},
        _awq,
    ),
    "auto-round": (lambda kept: {**_GROUP, "packing_format": "auto_round:auto_gptq"}, _gptq),
    "compressed-tensors int8": (_compressed("pack-quantized", _INT8 | _CHANNEL), _int8),
    "compressed-tensors int4": (
        _compressed("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": FINE}),
        _four,
    ),
    "compressed-tensors int8, activations too": (_compressed("int-quantized", _INT8 | _CHANNEL, _INT8), _eight),
    "compressed-tensors fp8, activations too": (
        _compressed("float-quantized", _FP8 | _CHANNEL, _FP8),
        _eight_floats,
    ),
    "aqlm": (
        lambda kept: {
            "in_group_size": 8,
            "out_group_size": 1,
            "num_codebooks": 1,
            "nbits_per_codebook": 8,
            "linear_weights_not_to_quantize": [*kept, *(f"{part}.weight" for part in kept)],
        },
        _aqlm,
    ),
    "bitnet": (
        lambda kept: {
            "linear_class": "bitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": kept,
        },
        _bitnet,
    ),
}
