"""Rows that were made elsewhere, from what a client sent to a segment. In: an `Embedding`, and what the model needs.
Out: an `EmbeddingSegment`, or InputError that says what was expected. Never pickle: arrays and safetensors alone.
"""

from __future__ import annotations

import numpy as np

from ..codecs.tensors import read_tensors
from ..errors import InputError
from .item import Embedding
from .segment import EmbeddingSegment, RowSpec

_NONE = (0, 0, 0)


def embedding_segment(item: Embedding, spec: RowSpec) -> EmbeddingSegment:
    """The item as a segment. InputError for another kind, shape or type, for numbers that are not finite, and where a
    grid, times or deeper features are missing or too many."""
    if item.kind not in spec.ids:
        kinds = f"kind {', '.join(spec.ids)}" if spec.ids else "none, since this model takes no rows made elsewhere"
        raise InputError(f"embedding: expected {kinds}, got {item.kind!r}")
    tensors = {"rows": item.data} if isinstance(item.data, np.ndarray) else read_tensors(item.data)
    others = tensors.keys() - {"rows", "deep"}
    if "rows" not in tensors or others:
        raise InputError(f"embedding: expected tensors rows and deep, got {', '.join(sorted(tensors)) or 'none'}")
    rows, deep = _numbers("rows", tensors["rows"]), tensors.get("deep")
    if rows.ndim != 2 or rows.shape[1] != spec.width or not len(rows):
        raise InputError(f"embedding: expected rows (n, {spec.width}) with n at least 1, got {rows.shape}")
    if deep is not None:
        deep = _numbers("deep", deep)
    needs = spec.deep if item.kind in ("image", "video") else 0
    wanted = (needs, *rows.shape) if needs else None
    if (None if deep is None else deep.shape) != wanted:
        got = "none" if deep is None else str(deep.shape)
        raise InputError(f"embedding: expected deep features {wanted or 'none'} of this model, got {got}")
    grid = _grid(item, spec, len(rows))
    if spec.timed and item.kind == "video" and (item.pts_us is None or item.stop_us is None):
        raise InputError(
            "embedding: expected pts_us and stop_us, since this model is told the times of video, got none"
        )
    return EmbeddingSegment(0, 0, item.kind, spec.ids[item.kind], rows, deep, grid, item.pts_us, item.stop_us)


def _grid(item: Embedding, spec: RowSpec, count: int) -> tuple[int, int, int]:
    needed = spec.grids and item.kind in ("image", "video")
    if (item.grid is not None) != needed:
        what = "the grid (temporal patches, height, width) of its rows" if needed else "no grid"
        raise InputError(f"embedding: expected {what}, got {item.grid}")
    if item.grid is None:
        return _NONE
    whole = len(item.grid) == 3 and all(type(side) is int and side > 0 for side in item.grid)
    if not whole:
        raise InputError(f"embedding: expected three whole numbers above 0 as grid, got {item.grid}")
    patches, height, width = item.grid
    if patches * height * width != count:
        raise InputError(f"embedding: expected a grid of {count} rows, got {item.grid}")
    if patches != 1 and (item.kind == "image" or spec.timed):
        raise InputError(f"embedding: expected one temporal patch, got {patches}")
    return item.grid


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype not in (np.float32, np.float16):
        raise InputError(f"embedding: expected {name} as float32 or float16, got {values.dtype}")
    wide = np.require(values, np.float32, ["C", "W"])
    if not np.isfinite(wide).all():
        raise InputError(f"embedding: expected finite numbers as {name}, got NaN or infinity")
    return wide
