"""What a checkpoint's weights are, read from the headers of its safetensors files alone. In: the files. Out: how many
numbers there are and in which type. It loads no tensor and knows no families, but for the one prefix below.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
import torch
from safetensors import safe_open

from ..families.parts import Side

_FLOATS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2, "U16": 2}
# Of a checkpoint that has tensors of this name, a whole Omni, these are served and no others.
_SERVED = "thinker."
# How checkpoints call what is of the decoder and its output layer; whatever else there is belongs to the towers.
_DECODER = re.compile(
    r"(^|\.)(language_model|text_model|lm_head)\.|^(thinker\.)?(model\.)?(layers|embed_tokens|norm)\."
)


class Weights(msgspec.Struct, frozen=True):
    """floats: how many numbers are loaded in whatever type is chosen. fixed_bytes: what is loaded as it is stored
    (integers, 8-bit floats). dtype: the type in which most of the floats are stored.
    """

    floats: int
    fixed_bytes: int
    dtype: str

    def bytes_in(self, dtype: str) -> int:
        """How many bytes they take in `dtype`. An estimate: what a model computes for itself at load (tables of
        positions, tied layers that are stored twice) is not known from the headers."""
        return self.floats * getattr(torch, dtype).itemsize + self.fixed_bytes


def of_decoder(name: str) -> bool:
    """Whether a tensor that a checkpoint calls so is of the decoder."""
    return _DECODER.search(name) is not None


def read(files: Iterable[Path], side: Side | None = None) -> Weights:
    """The weights in these files, or those of one side. Raises SafetensorError or OSError where one cannot be read."""
    tensors: dict[str, tuple[str, int]] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():
                part = opened.get_slice(name)
                tensors[name] = (part.get_dtype(), math.prod(part.get_shape()))
    if any(name.startswith(_SERVED) for name in tensors):
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(_SERVED)}
    if side is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if of_decoder(name) == (side == "language")}
    floats: Counter[str] = Counter()
    fixed_bytes = 0
    for dtype, count in tensors.values():
        if dtype in _FLOATS:
            floats[_FLOATS[dtype]] += count
        else:
            fixed_bytes += count * _BYTES.get(dtype, 1)
    own = max(floats, key=lambda dtype: floats[dtype], default="float32")
    return Weights(floats.total(), fixed_bytes, own)
