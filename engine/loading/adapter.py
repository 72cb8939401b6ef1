"""An adapter in a folder, as peft writes it: `adapter_config.json` and `adapter_model.safetensors`. In: the folder.
Out: its matrices by the layers that they change, or InputError that says what was expected and what came.

Only plain LoRA is taken: what else the configuration asks for would change the result, and is refused by its name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from ...errors import InputError

_CONFIG, _WEIGHTS, _PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_BEFORE = "base_model.model."
_PARTS = {".lora_A.weight": "down", ".lora_B.weight": "up"}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# What changes nothing once an adapter is trained.
_HARMLESS = {
    *("auto_mapping", "base_model_name_or_path", "ephemeral_gpu_offload", "exclude_modules", "inference_mode"),
    *("layers_pattern", "layers_to_transform", "lora_dropout", "megatron_core", "peft_version", "qalora_group_size"),
    *("revision", "runtime_config", "target_modules", "task_type", "eva_config"),
}
_READ = {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"}
# What the others have to be; those that are not named have to be off.
_EXPECTED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),  # others change the base, too
}
_WHY = {
    "use_dora": "DoRA scales whole weights, which stay as they are here",
    "modules_to_save": "whole layers of its own would be a second model",
    "trainable_token_indices": "words of its own would be a second table of embeddings",
    "bias": "its layers have biases of their own",
    "init_lora_weights": "the base was changed with it; save it again as plain LoRA (path_initial_model_for_weight_"
    "conversion)",
}


class AdapterPart(NamedTuple):
    """Of one layer: down `(r, in)`, up `(out, r)`, and the factor of their product."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


class AdapterFile(NamedTuple):
    """What the folder has. layers: by their names, as the model that was trained has them. base: what that was called.
    fingerprint: equal only for the same matrices and factors."""

    layers: dict[str, AdapterPart]
    base: str
    rank: int
    fingerprint: str


def read_adapter(folder: str | Path) -> AdapterFile:
    """The adapter in a folder. Raises InputError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"adapter: expected a folder, got {_named(folder)}, which is none")
    said = _read_config(folder)
    pairs = _pairs(_read_tensors(folder))
    _check_complete(said, pairs)
    layers, digest = {}, hashlib.blake2b(digest_size=16)
    for name, pair in sorted(pairs.items()):
        rank, scale = _rank_and_scale(said, name)
        down, up = pair["down"], pair["up"]
        if down.dim() != 2 or up.dim() != 2 or down.shape[0] != rank or up.shape[1] != rank:
            got = f"{tuple(down.shape)} and {tuple(up.shape)}"
            raise InputError(f"adapter: {name}: expected matrices (r, in) and (out, r) of rank {rank}, got {got}")
        digest.update(f"{name} {scale!r}".encode())
        for part in (down, up):
            digest.update(f" {part.dtype} {tuple(part.shape)} ".encode())
            digest.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        layers[name] = AdapterPart(down, up, scale)
    base = said.get("base_model_name_or_path") or ""
    return AdapterFile(layers, str(base), max(len(part.down) for part in layers.values()), digest.hexdigest())


def _named(folder: Path) -> str:
    """The folder without the way to it, which a client of a server need not know."""
    return repr(folder.name[:80])


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        said = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"adapter: expected {_CONFIG} in {_named(folder)}, got none") from None
    except (OSError, ValueError) as error:
        raise InputError(f"adapter: {_CONFIG}: expected JSON, got {type(error).__name__}") from error
    if not isinstance(said, dict):
        raise InputError(f"adapter: {_CONFIG}: expected an object, got {type(said).__name__}")
    for name, expected in _EXPECTED.items():
        if said.get(name) not in expected:
            allowed = " or ".join(str(one) for one in expected if one is not None)
            raise InputError(_refusal(name, allowed, said.get(name)))
    for name, value in said.items():
        if value and name not in _HARMLESS | _READ | _EXPECTED.keys():
            raise InputError(_refusal(name, "none", value))
    rank, alpha = said.get("r"), said.get("lora_alpha")
    if not _is_count(rank):
        raise InputError(f"adapter: {_CONFIG}: r: expected a whole number above 0, got {rank!r}")
    if not _is_number(alpha):
        raise InputError(f"adapter: {_CONFIG}: lora_alpha: expected a number, got {alpha!r}")
    for name, fits in (("rank_pattern", _is_count), ("alpha_pattern", _is_number)):
        pattern = said.get(name) or {}
        named = isinstance(pattern, dict) and all(re.fullmatch(r"[\w.]+", key) for key in pattern)
        if not named or not all(map(fits, pattern.values())):
            raise InputError(f"adapter: {_CONFIG}: {name}: expected numbers by names of layers, got {pattern!r:.80}")
    return said


def _refusal(name: str, expected: str, got: Any) -> str:
    why = f": {_WHY[name]}" if name in _WHY else ""
    return f"adapter: {_CONFIG}: {name}: expected {expected}, got {got!r:.80}{why}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    file = folder / _WEIGHTS
    if not file.is_file():
        got = f"{_PICKLE}: pickles can run code when they are read" if (folder / _PICKLE).exists() else "none"
        raise InputError(f"adapter: expected {_WEIGHTS} in {_named(folder)}, got {got}")
    try:
        with safe_open(file, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"adapter: {_WEIGHTS}: expected safetensors, got none: {type(error).__name__}") from error


def _pairs(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Both matrices of each layer, by its name."""
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        ending = next((ending for ending in _PARTS if key.endswith(ending)), None)
        if ending is None or not key.startswith(_BEFORE):
            raise InputError(
                f"adapter: {_WEIGHTS}: expected {_BEFORE}<layer>.lora_A.weight and .lora_B.weight, got {key[:160]}"
            )
        if tensor.dtype not in _FLOATS:
            raise InputError(f"adapter: {key}: expected float32, float16 or bfloat16, got {tensor.dtype}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"adapter: {key}: expected finite numbers, got others")
        pairs.setdefault(key.removeprefix(_BEFORE).removesuffix(ending), {})[_PARTS[ending]] = tensor
    if not pairs:
        raise InputError(f"adapter: {_WEIGHTS}: expected at least one layer, got none")
    for name, pair in pairs.items():
        if len(pair) < 2:
            raise InputError(f"adapter: {name}: expected lora_A and lora_B, got one of them")
    return pairs


def _check_complete(said: dict[str, Any], pairs: dict[str, Any]) -> None:
    """InputError where a layer that the configuration names by its whole name, or its end, has no matrices."""
    asked = said.get("target_modules")
    for target in asked if isinstance(asked, list) else ():
        if not any(name == target or name.endswith(f".{target}") for name in pairs):
            raise InputError(f"adapter: target_modules: expected matrices of {target!r}, got none")


def _rank_and_scale(said: dict[str, Any], name: str) -> tuple[int, float]:
    """Of one layer, by the first pattern that its name ends with, as peft looks for it."""
    found = [said["r"], said["lora_alpha"]]
    for place, pattern in enumerate(("rank_pattern", "alpha_pattern")):
        for key, value in (said.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({key})$", name):
                found[place] = value
                break
    rank, alpha = found
    return rank, alpha / (math.sqrt(rank) if said.get("use_rslora") else rank)
