"""Tensors from bytes: a safetensors file, or numbers whose type and shape were said beside them. In: bytes. Out:
arrays. Nothing in them is code.
"""

from __future__ import annotations

import math

import numpy as np
from safetensors import SafetensorError, deserialize

from ..errors import InputError

_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def read_tensors(data: bytes | bytearray | memoryview) -> dict[str, np.ndarray]:
    """The arrays, float32 or float16; bfloat16, which numpy has not, comes as float32. InputError for bytes that are no
    such file, and for other types of numbers."""
    try:
        entries = deserialize(bytes(data))
    except SafetensorError as error:
        raise InputError(f"expected a safetensors file, got bytes that are none ({error})") from None
    return {name: _array(name, **entry) for name, entry in entries}


def from_raw(data: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers as an array of this shape, the low byte first; bfloat16 comes as float32. InputError for another
    type, and where there are more or fewer bytes."""
    known = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    if not isinstance(dtype, str) or dtype not in known:
        raise InputError(f"dtype: expected {', '.join(known)}, got {dtype!r}"[:200])
    size = math.prod(shape) * np.dtype(_TYPES[known[dtype]]).itemsize
    if len(data) != size:
        raise InputError(f"expected {size} bytes of {dtype} in the shape {list(shape)}, got {len(data)}")
    return _array("rows", known[dtype], list(shape), data)


def _array(name: str, dtype: str, shape: list[int], data: bytes | bytearray) -> np.ndarray:
    if dtype not in _TYPES:
        raise InputError(f"{name}: expected float32, float16 or bfloat16, got {dtype}")
    values = np.frombuffer(data, _TYPES[dtype]).reshape(shape)
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else values
