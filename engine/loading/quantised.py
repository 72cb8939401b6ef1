"""Whether a quantised checkpoint can be loaded here, before its weights are read. In: its configuration. Out: nothing;
or what stands in the way, in words. The library's own checks decide, by this machine's packages and devices.
"""

from __future__ import annotations

import copy
import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ...errors import ModelError
from ..runner.rotary import decoder_config

# Packages by the module that they bring, where the library's own words do not name them all, or how to get them.
_PACKAGES = {
    "gptq": {"optimum": "optimum", "gptqmodel": "gptqmodel"},
    "hqq": {"hqq": "hqq"},
    "quark": {"quark": "amd-quark"},
    "sinq": {"sinq": "sinq"},
}
# Formats whose kernels give one row other numbers than they give it among many.
_UNEQUAL = ("aqlm",)
# Formats whose weights the library puts into floats wherever they are loaded (families/opened.py).
_UNPACKED = ("compressed-tensors",)


def quantisation(config: Any) -> Any:
    """What a checkpoint says of its quantisation: a mapping, or what the library has made of it. None: it is in
    floats."""
    parts = (config, getattr(config, "thinker_config", None), decoder_config(config))
    said = (getattr(part, "quantization_config", None) for part in parts)
    return next((one for one in said if one is not None), None)


def stays_quantised(config: Any, here: bool = True) -> bool:
    """Whether the checkpoint is quantised and its weights stay so when they are loaded here: on some devices the
    library puts those of some formats into floats. ModelError where its quantisation is not the library's, or needs
    CUDA where there is none; ImportError, in the library's words, where a package is missing. Where it is not about
    this machine (`here` False), all stay but those that are put into floats anywhere."""
    given = quantisation(config)
    if given is None:
        return False
    auto = import_module("transformers.quantizers.auto")
    settings = given if isinstance(given, dict) else given.to_dict()
    method = str(settings.get("quant_method", "bitsandbytes"))
    if not auto.AutoHfQuantizer.supports_quant_method(settings):
        known = ", ".join(sorted(auto.AUTO_QUANTIZATION_CONFIG_MAPPING))
        raise ModelError(f"quantization_config: expected one of {known}, got {method!r}")
    if method in _UNEQUAL:
        raise ModelError(
            f"quantization_config: expected layers that give a row the same alone and beside others, got {method}"
        )
    if method in _UNPACKED and settings.get("kv_cache_scheme"):
        raise ModelError("quantization_config: expected keys and values as the layers give them, got kv_cache_scheme")
    if not here:
        return method not in _UNPACKED
    _check_packages(method)
    try:
        quantizer = auto.AutoHfQuantizer.from_config(copy.deepcopy(settings), pre_quantized=True)
        quantizer.validate_environment(device_map=None, weights_only=True)
        return method not in _UNPACKED and not getattr(quantizer.quantization_config, "dequantize", False)
    except Exception as error:  # whatever the library raises over a machine that it does not expect
        why = " ".join(str(error).split())
        if isinstance(error, ImportError) and ("pip install" in why or "GPU" not in why):
            raise
        if re.search(r"\b(GPU|CUDA)\b", why):
            raise ModelError(
                f"expected a CUDA device, which the quantisation {method} needs, got none: {why}"
            ) from error
        told = why if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {why}"
        raise ModelError(f"quantization_config: expected one that can be loaded here, got {method}: {told}") from error


def _check_packages(method: str) -> None:
    missing = [package for module, package in _PACKAGES.get(method, {}).items() if find_spec(module) is None]
    if missing:
        named = f"the package{'s' * (len(missing) > 1)} {' and '.join(missing)}"
        raise ModelError(
            f"expected {named}, which this checkpoint needs, got none: pip install {' '.join(map(repr, missing))}"
        )
