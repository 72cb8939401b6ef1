"""A checkpoint's model with all of its weights: what is missing the library makes up at random, and only warns.
In: a class of `transformers`, a folder, a device. Out: the model on the device. On "meta", where tensors have shapes
and no numbers, no weight is read; where only one side of a model is wanted (parts.py), the other is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...errors import ModelError
from ..runner.library import transformers
from .parts import left_out, put, wanted, without

_NAMED = 3


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
    model, told = chosen.from_pretrained(
        path, dtype=dtype, use_safetensors=True, attn_implementation=attention, output_loading_info=True
    )
    missing = sorted(told["missing_keys"])
    if missing:
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        others = [name for name in model.config.architectures or () if name != type(model).__name__]
        of = f"those of {', '.join(others)}, and " if others else ""
        raise MissingWeights(
            f"expected all weights of {type(model).__name__}, got {of}none for {len(missing)}: {named}"
        )
    model = model.to(device).eval()
    for name in names:
        assert whole is not None
        put(model, name, whole.get_submodule(name))
    return model


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
