"""A checkpoint's model with all of its weights: what is missing the library makes up at random, and only warns.
In: a class of `transformers`, a folder, a device. Out: the model on the device. On "meta", where tensors have shapes
and no numbers, no weight is read; where only one side of a model is wanted (parts.py), the other is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ...errors import ModelError
from ..runner.library import transformers
from .parts import left_out, put, wanted, without

_NAMED = 3
_SCALES = (".weight_scale", ".weight_scale_inv", ".SCB")
# Before the name of a module, or a pattern of such, in which a dot may stand for any letters.
_THINKER = re.compile(r"^(re:)?\^?(?:\.\*)?thinker(?:\\?\.(?!\*))?")


class MissingWeights(ModelError):
    """Some are not in the checkpoint's files."""


def open_model(make: Any, path: Path, dtype: torch.dtype, device: torch.device, attention: str | dict[str, str]) -> Any:
    """`make.from_pretrained(path)` from safetensors, on `device`. Raises MissingWeights with the names of what is not
    there."""
    if device.type == "meta":
        return _unread(make, path, dtype, attention)
    side = wanted()
    whole = None if side is None else _unread(make, path, dtype, attention)
    names = [] if whole is None or side is None else left_out(whole, side)
    chosen = without(type(whole), names) if names else make
    how = {"dtype": dtype, "use_safetensors": True, "attn_implementation": attention, "output_loading_info": True}
    model, told = chosen.from_pretrained(path, **how, **_quantised_as_whole(make, path))
    missing = sorted(told["missing_keys"])
    if missing:
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        others = [name for name in model.config.architectures or () if name != type(model).__name__]
        of = f"those of {', '.join(others)}, and " if others else ""
        raise MissingWeights(
            f"expected all weights of {type(model).__name__}, got {of}none for {len(missing)}: {named}"
        )
    _check_scales(model, told["unexpected_keys"])
    model = model.to(device).eval()
    _unpack(model)
    for name in names:
        assert whole is not None
        put(model, name, whole.get_submodule(name))
    return model


def _check_scales(model: Any, unread: Iterable[str]) -> None:
    """ModelError where a layer has a scale that nothing reads: its numbers would be taken for its weights."""
    modules = {name for name, _ in model.named_modules()}
    scales = [key for key in unread if key.endswith(_SCALES) and key.rpartition(".")[0] in modules]
    if scales:
        raise ModelError(f"expected a quantization_config that tells of its scales, got none for {min(scales)}")


def _quantised_as_whole(make: Any, path: Path) -> dict[str, Any]:
    """Where the model is a part of the checkpoint and only the whole says how its weights are quantised: the part's
    configuration with that, in which names of modules begin at the part."""
    if hasattr(make, "from_config"):
        return {}
    config = make.config_class.from_pretrained(path)
    said = transformers.PreTrainedConfig.get_config_dict(path)[0].get("quantization_config")
    if said is None or hasattr(config, "quantization_config"):
        return {}
    config.quantization_config = _inside(said)
    return {"config": config}


def _inside(said: Any) -> Any:
    """Settings with the names of a whole's modules as its thinker has them, patterns too."""
    if isinstance(said, dict):
        return {_inside(name): _inside(value) for name, value in said.items()}
    if isinstance(said, list):
        return [_inside(value) for value in said]
    return _THINKER.sub(r"\1", said) if isinstance(said, str) else said


def _unpack(model: Any) -> None:
    """Put packed weights into floats, where the library does so at the first forward pass of the whole model: here its
    parts are called. A layer whose activations are rounded goes on doing so; others become plain ones."""
    hook = getattr(model, "ct_decompress_hook", None)
    if hook is None:
        return
    decompress = import_module("compressed_tensors.compressors").decompress_module
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        rounds = scheme is not None and (scheme.input_activations or scheme.output_activations) is not None
        decompress(module, leave_decompressed=rounds)
        if scheme is not None and not rounds:
            vars(module).pop("forward", None)  # its class's own, bound again
    hook.remove()


def _unread(make: Any, path: Path, dtype: torch.dtype, attention: str | dict[str, str]) -> Any:
    """The same model by its configuration alone."""
    chooses = hasattr(make, "from_config")  # a class that takes the one that the configuration names
    config = (transformers.AutoConfig if chooses else make.config_class).from_pretrained(path)
    build = make.from_config if chooses else make._from_config
    with torch.device("meta"):
        model = build(config, dtype=dtype, attn_implementation=attention)
    if (path / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(path)
    return model.eval()


def decoder_of(model: Any) -> Any:
    """The decoder of a model, without the output layer that some count to it."""
    decoder = model.get_decoder()
    if decoder.get_output_embeddings() is None:
        return decoder
    inner = decoder.get_decoder()
    return decoder.model if inner is decoder else inner
