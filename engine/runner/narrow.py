"""Keys and values in eight bits. In: rows of floats, as a layer makes them. Out: rows of the cache in half of
bfloat16's bytes, and back.

Each head of a row is rounded alone: value = scale * stored, and the largest value becomes the largest number that eight
bits have. int8 has equal steps; fp8 is e4m3 (arXiv 2209.05433), whose steps grow with the value. The scale, a float32,
lies behind the numbers of its head, so what is done to pages moves it along. Rows do not change one another.
"""

from __future__ import annotations

import torch

from ...errors import ModelError

# How the cache holds what is named so. e4m3 lies there as its bit patterns: torch moves integers on every device.
KV_DTYPES = {"int8": torch.int8, "fp8": torch.uint8}
_LARGEST = {torch.int8: 127.0, torch.uint8: 448.0}
SCALE_BYTES = 4
_LEAST = 1e-30  # of a scale: a head of zeros stays one


def kv_type(name: str, own: torch.dtype) -> torch.dtype:
    """The type of the cache's numbers for `EngineConfig.kv_dtype`; `own` is the model's. ModelError for another
    name."""
    if name == "auto":
        return own
    if name not in KV_DTYPES:
        raise ModelError(f"kv_dtype: expected auto, int8 or fp8, got {name!r}")
    return KV_DTYPES[name]


def is_narrow(dtype: torch.dtype) -> bool:
    """Whether a cache of this type has scales."""
    return dtype in _LARGEST


def width(dim: int, dtype: torch.dtype) -> int:
    """How many numbers of this type a head of `dim` takes in the cache, its scale included. ModelError where the scale
    would not lie at a multiple of its size."""
    if not is_narrow(dtype):
        return dim
    if dim % SCALE_BYTES:
        raise ModelError(f"kv_dtype: expected heads of a multiple of {SCALE_BYTES} numbers for eight bits, got {dim}")
    return dim + SCALE_BYTES


def numbers(pool: torch.Tensor) -> int:
    """How many numbers a head of these pages stands for."""
    return pool.shape[-1] - SCALE_BYTES * is_narrow(pool.dtype)


def narrowed(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rows `(rows, heads, dim)` as a cache of this type holds them, `(rows, heads, width)`. What is not finite makes
    all of its head so."""
    if not is_narrow(dtype):
        return rows
    values = rows.float()
    scale = (values.abs().amax(-1, keepdim=True) / _LARGEST[dtype]).clamp_min(_LEAST)
    values = values / scale
    stored = values.round_().to(dtype) if dtype == torch.int8 else values.to(torch.float8_e4m3fn).view(dtype)
    return torch.cat([stored, scale.view(dtype)], -1)


def widened(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rows `(..., heads, width)` of a cache as `(..., heads, dim)` in `dtype`; those of a cache in floats as they
    are."""
    if not is_narrow(rows.dtype):
        return rows
    stored, scale = rows[..., :-SCALE_BYTES], rows[..., -SCALE_BYTES:].contiguous().view(torch.float32)
    if rows.dtype == torch.uint8:  # torch's own way takes seven times as long; a float16's exponent is eight too small
        bits = stored.to(torch.int16)
        stored, scale = (((bits & 128) << 8) | ((bits & 127) << 7)).view(torch.float16), scale * 256
    return stored.float().mul_(scale).to(dtype)


def write(pool: torch.Tensor, target: torch.Tensor, rows: torch.Tensor) -> None:
    """Rows `(n, heads, dim)` go to the rows `target` `(n,)` int64 of pages `(pages, page_tokens, heads, width)`."""
    if len(rows):
        pool.flatten(0, 1).index_copy_(0, target, narrowed(rows, pool.dtype))
