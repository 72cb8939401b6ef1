"""Where a model goes and in which type of number, before its weights are read. In: what was asked for, the weights'
sizes, this machine. Out: a device, a dtype and why; or ModelError, where it cannot be there or does not fit.
"""

from __future__ import annotations

import platform

import msgspec
import torch

from ...errors import ModelError
from ..config import EngineConfig
from . import compute, gain
from .compute import amount
from .weights import Weights

DTYPES = ("float32", "bfloat16", "float16")
# Below the first size in float32 a CPU gains nothing in bfloat16: so small a model's layers lie in its caches. From the
# second on it takes bfloat16 where the processor has it: that is half the memory. In between it is measured.
_SMALL_BYTES, _LARGE_BYTES = 64 << 20, 1 << 30
_WORTH = 1.1  # so many times as fast as float32, which is exact


class Placement(msgspec.Struct, frozen=True):
    """`device` and `dtype` as torch names them; `why` is why these, empty where they were asked for."""

    device: str
    dtype: str
    why: str


def place(config: EngineConfig, weights: Weights, here: bool = True) -> Placement:
    """The device and the dtype of `config`, with "auto" decided. ModelError where they are not to be had here; where
    it is not about this machine (`here` False) any device is, and computes in every type."""
    device, lacking = _device(config.device) if here else (_elsewhere(config.device), "")
    if config.dtype == "float16" and device == "cpu":
        raise ModelError("dtype: expected float32 or bfloat16 on a CPU, got float16")
    if config.dtype in DTYPES:
        return Placement(device, config.dtype, lacking)
    if config.dtype != "auto":
        raise ModelError(f"dtype: expected auto, {', '.join(DTYPES)}, got {config.dtype!r}")
    dtype, why = _dtype(device, weights, here)
    return Placement(device, dtype, "; ".join(filter(None, (why, lacking))))


def check_room(weights: Weights, placement: Placement, elsewhere: int | None = None) -> None:
    """ModelError where the weights are larger than the memory that is free. They pass through the host's memory.
    `elsewhere`: what is free on a device that is not here."""
    need = weights.bytes_in(placement.dtype)
    places = (placement.device, "cpu") if elsewhere is None else (placement.device,)
    for device in dict.fromkeys(places):
        free = compute.free_bytes(device) if elsewhere is None else elsewhere
        if free is not None and need > free:
            advice = ["a smaller model"]
            if weights.bytes_in("bfloat16") <= free:
                advice.insert(0, "--dtype bfloat16")
            raise ModelError(
                f"needs {amount(need)} for weights in {placement.dtype}, {amount(free)} free on {device}; "
                f"try {' or '.join(advice)}"
            )


def _device(word: str) -> tuple[str, str]:
    """A device that is here, and, where the first of them was to be taken, why no better one is."""
    if word == "cpu":
        return word, ""
    found = compute.computers()
    here = [computer.word for computer in found if computer.why is None]
    if word == "auto":
        better = found[: next(place for place, computer in enumerate(found) if computer.word == here[0])]
        return here[0], ", ".join(f"no {computer.word}: {computer.why}" for computer in better)
    kind = word.partition(":")[0]
    if word in here or f"{word}:0" in here:
        return (word if word in here else f"{word}:0"), ""
    lacking = next((computer.why for computer in found if computer.word == kind and computer.why), None)
    raise ModelError(f"device: expected auto, {', '.join(here)}, got {word!r}" + (f": {lacking}" if lacking else ""))


def _elsewhere(word: str) -> str:
    """A device of another machine; "auto" is a card."""
    kind, colon, number = word.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and number.isdigit())):
        raise ModelError(f"device: expected auto, cpu, cuda or mps, got {word!r}")
    return "cuda" if kind == "auto" else word


def _dtype(device: str, weights: Weights, here: bool) -> tuple[str, str]:
    """The dtype for weights that are stored in `weights.dtype`, and why."""
    own = weights.dtype
    if own not in DTYPES:
        return "float32", f"the checkpoint's {own} is not served"
    if here and device.startswith("cuda") and own == "bfloat16":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            return "float16", "this card does not compute in the checkpoint's bfloat16"
    if device == "cpu" and own == "float16":
        return "float32", "the checkpoint's float16 is slow on a CPU"
    if device == "cpu" and own == "bfloat16":
        if weights.bytes_in("float32") < _SMALL_BYTES:
            return "float32", "a model so small is not faster in the checkpoint's bfloat16"
        if here and not fast_bfloat16():
            return "float32", "the checkpoint's bfloat16 is slow on this processor"
        if here and weights.bytes_in("float32") < _LARGE_BYTES:
            faster = gain.bfloat16_gain()
            measured = f"measured {faster:.1f} times as fast as float32"
            if faster < _WORTH:
                return "float32", f"the checkpoint's bfloat16 is not worth it here: {measured}"
            return own, f"as the checkpoint has it: {measured}"
    return own, "as the checkpoint has it"


def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself (x86: AVX512-BF16 or AMX; ARM: BF16), by what torch says."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
