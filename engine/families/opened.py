"""A checkpoint's model with all of its weights: what is missing the library makes up at random, and only warns.
In: a class of `transformers` and a folder. Out: the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...codecs.errors import ModelError

_NAMED = 3


class MissingWeights(ModelError):
    """Some are not in the checkpoint's files."""


def open_model(make: Any, path: Path, dtype: torch.dtype, attention: str | dict[str, str]) -> Any:
    """`make.from_pretrained(path)` from safetensors. Raises MissingWeights with the names of what is not there."""
    model, told = make.from_pretrained(
        path, dtype=dtype, use_safetensors=True, attn_implementation=attention, output_loading_info=True
    )
    missing = sorted(told["missing_keys"])
    if missing:
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise MissingWeights(f"expected all weights of {type(model).__name__}, got none for {len(missing)}: {named}")
    return model
