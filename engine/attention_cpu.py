"""The CPU backend: one compiled loop over (rows, key heads) that reads each sequence's pages where they lie.

Nothing of the history is copied and nothing in Python runs per stream: numba compiles the loop once per data type, and the
rows of a step (decode rows and appended rows alike) are shared out over the cores. Softmax runs on line, page by page
(arXiv 1805.02867). bfloat16 is read as its upper half of a float32.
"""

from __future__ import annotations

import math
import threading

import numba
import numpy as np
import torch

from .attention import Part

# numba's parallel loops may be entered by one thread at a time.
_LOCK = threading.Lock()
# Query rows of one sequence that share one pass over its pages.
_TILE_ROWS = 8


@numba.njit(nogil=True, cache=True)
def _as_floats(rows, shift):
    """One page of one head, `(n, dim)` bit patterns, as contiguous float32: each shifted up to a float32's own place."""
    bits = np.empty(rows.shape, np.uint32)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            bits[i, j] = np.uint32(rows[i, j]) << shift
    return bits.view(np.float32)


@numba.njit(parallel=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, nogil=True, cache=True)
def _attend(query, keys, values, shift, tables, slots, lengths, tiles, scale, out, lse):  # noqa: PLR0913 (arrays of one kernel)
    heads, dim = query.shape[1], query.shape[2]
    size, kv_heads = keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    for job in numba.prange(len(tiles) * kv_heads):
        first, last = tiles[job // kv_heads]
        head = job % kv_heads
        count = (last - first) * group
        weighted = np.zeros((count, dim), np.float32)
        top = np.full(count, -np.inf, np.float32)
        total = np.zeros(count, np.float32)
        scores = np.empty(size, np.float32)
        table = tables[slots[first]]
        for place in range((lengths[last - 1] + size - 1) // size):
            page = table[place]
            here = min(size, lengths[last - 1] - place * size)
            page_keys = _as_floats(keys[page, :here, head], shift)
            page_values = _as_floats(values[page, :here, head], shift)
            for line in range(count):
                row = first + line // group
                visible = min(size, lengths[row] - place * size)
                if visible <= 0:
                    continue
                wanted = query[row, head * group + line % group]
                best = top[line]
                for token in range(visible):
                    key = page_keys[token]
                    score = np.float32(0)
                    for i in range(dim):
                        score += wanted[i] * key[i]
                    score *= scale
                    scores[token] = score
                    best = max(best, score)
                shrink = math.exp(top[line] - best)
                total[line] *= shrink
                for i in range(dim):
                    weighted[line, i] *= shrink
                for token in range(visible):
                    weight = np.float32(math.exp(scores[token] - best))
                    total[line] += weight
                    value = page_values[token]
                    for i in range(dim):
                        weighted[line, i] += weight * value[i]
                top[line] = best
        for line in range(count):
            row, column = first + line // group, head * group + line % group
            if total[line] > 0:
                lse[row, column] = top[line] + math.log(total[line])
                for i in range(dim):
                    out[row, column, i] = weighted[line, i] / total[line]
            else:
                lse[row, column] = -np.inf
                out[row, column] = 0


def _tiles(part: Part) -> np.ndarray:
    """Cut the runs into tiles of a few rows, `(tiles, 2)`: first and last row, half open."""
    return np.array(
        [
            (first, min(first + _TILE_ROWS, stop))
            for start, stop, _ in part.runs
            for first in range(start, stop, _TILE_ROWS)
        ],
        dtype=np.int64,
    ).reshape(-1, 2)


def _bits(tensor: torch.Tensor) -> np.ndarray:
    """The pages' bit patterns, sharing their memory: uint32 for float32, uint16 for bfloat16."""
    return tensor.view(torch.uint16 if tensor.dtype == torch.bfloat16 else torch.uint32).numpy()


class CpuBackend:
    """Attention on the CPU over float32 or bfloat16 pages; sums are taken in float32."""

    page_tokens = 16

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.empty(query.shape, dtype=torch.float32)
        lse = torch.empty(query.shape[:2], dtype=torch.float32)
        arrays = [tensor.numpy() for tensor in (part.tables, part.slots, part.lengths)]
        with _LOCK:
            _attend(
                query.float().numpy(), _bits(keys), _bits(values), np.uint32(16 if keys.dtype == torch.bfloat16 else 0),
                *arrays, _tiles(part), np.float32(scale),
                out.numpy(), lse.numpy(),
            )  # fmt: skip
        return out.to(query.dtype), lse
