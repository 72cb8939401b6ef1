"""Rows that were made elsewhere, as a content part writes them: a safetensors file, or numbers with type and shape. In:
bytes or an array, and the part's own words. Out: an `Embedding`. Whether it fits a model is looked at later.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from ...codecs.tensors import from_raw
from ...errors import InputError
from ..item import Embedding
from .messages import described

_MOST = 1 << 31


def embedding_of(found: Any, kind: str, said: dict[str, Any]) -> Embedding:
    """Bytes are numbers where `said` has their `dtype` and `shape`, else a file. InputError where these do not fit the
    bytes, or a grid or a time is none."""
    if isinstance(found, Embedding):
        beside = [name for name in ("dtype", "shape", "grid", "pts_us", "stop_us") if said.get(name) is not None]
        if beside or kind != found.kind:
            more = f" and {', '.join(beside)} beside it" if beside else ""
            raise InputError(f"expected an embedding of {kind} that says all of itself, got one of {found.kind}{more}")
        data = found.data.copy() if isinstance(found.data, np.ndarray) else found.data
        return msgspec.structs.replace(found, data=data)
    if not isinstance(found, bytes | bytearray | memoryview | np.ndarray):
        raise InputError(f"expected bytes of a safetensors file, or an array, got {described(found)}")
    raw = [name for name in ("dtype", "shape") if said.get(name) is not None]
    data: Any = found.copy() if isinstance(found, np.ndarray) else bytes(found)
    if raw:
        if len(raw) == 1 or isinstance(found, np.ndarray):
            raise InputError(f"expected dtype and shape beside raw bytes, got {' and '.join(raw)} beside others")
        data = from_raw(data, said["dtype"], _shape(said["shape"]))
    grid = said.get("grid")
    times = {name: _whole(name, said.get(name)) for name in ("pts_us", "stop_us")}
    return Embedding(data, kind, None if grid is None else _grid(grid), **times)


def _shape(value: Any) -> tuple[int, ...]:
    try:
        shape = msgspec.convert(value, tuple[int, ...])
    except msgspec.ValidationError:
        shape = ()
    if not shape or len(shape) > 3 or min(shape) < 0 or math.prod(shape) > _MOST:
        raise InputError(f"shape: expected whole numbers, rows and then width, got {described(value)}")
    return shape


def _grid(value: Any) -> tuple[int, int, int]:
    try:
        return msgspec.convert(value, tuple[int, int, int])
    except msgspec.ValidationError:
        raise InputError(f"grid: expected three whole numbers, got {described(value)}") from None


def _whole(name: str, value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InputError(f"{name}: expected a whole number of microseconds, got {described(value)}")
