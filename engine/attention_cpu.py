"""The CPU backend: one compiled loop over (rows, key heads) that reads each sequence's pages where they lie.

Nothing of the history is copied as a whole and nothing in Python runs per stream: numba compiles the loop once per
data type, and the rows of a step (decode rows and appended rows alike) are shared out over the cores. Softmax runs on
line, page by page (arXiv 1805.02867). bfloat16 is read as the upper half of a float32.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numba
import numpy as np
import torch

from .attention import Part

# numba's parallel loops may be entered by one thread at a time.
_LOCK = threading.Lock()
# Query rows of one sequence that share one pass over its pages.
_TILE_ROWS = 8
_FAST = {"reassoc", "contract", "arcp", "nsz"}


@numba.njit(nogil=True, cache=True, fastmath=_FAST, inline="always")
def _weigh(scores, powers, floats, count, best):
    """scores[:count] become exp(scores - best), all at most 1; returns their sum.

    exp(x) = 2^k * exp(r): k rounds x / ln 2, r lies in [-ln 2 / 2, ln 2 / 2] where a polynomial of degree 6 has
    float32's precision (Cephes `expf`). `powers` (int32) and `floats` (float32) are two views of one buffer, in which
    2^k is made.
    """
    for token in range(count):
        x = max(scores[token] - best, np.float32(-87.0))
        k = math.floor(x * np.float32(1.44269504) + np.float32(0.5))
        powers[token] = (np.int32(k) + np.int32(127)) << np.int32(23)
        r = x - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        scores[token] = p * r * r + r + np.float32(1.0)
    total = np.float32(0)
    for token in range(count):
        scores[token] *= floats[token]
        total += scores[token]
    return total


@numba.njit(nogil=True, cache=True, inline="always")
def _read(page, shift, columns, rows, count, dim):
    """Bit patterns `(n, dim)` of one page and head, each shifted to a float32's own place.

    Written as columns `(dim, tokens)` where `columns`, else as rows `(tokens, dim)`.
    """
    for token in range(count):
        for i in range(dim):
            bits = np.uint32(page[token, i]) << shift
            if columns:
                rows[i, token] = bits
            else:
                rows[token, i] = bits


@numba.njit(parallel=True, fastmath=_FAST, nogil=True, cache=True)
def _attend(query, keys, values, shift, tables, slots, lengths, tiles, scale, out, lse):
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
        powers = np.empty(size, np.int32)
        key_bits = np.zeros((dim, size), np.uint32)
        value_bits = np.zeros((size, dim), np.uint32)
        key, value, floats = key_bits.view(np.float32), value_bits.view(np.float32), powers.view(np.float32)
        table = tables[slots[first]]
        for place in range((lengths[last - 1] + size - 1) // size):
            page = table[place]
            here = min(size, lengths[last - 1] - place * size)
            _read(keys[page, :, head], shift, True, key_bits, here, dim)
            _read(values[page, :, head], shift, False, value_bits, here, dim)
            for line in range(count):
                row = first + line // group
                visible = min(size, lengths[row] - place * size)
                if visible <= 0:
                    continue
                wanted = query[row, head * group + line % group]
                scores[:] = 0
                for i in range(dim):
                    for token in range(size):
                        scores[token] += wanted[i] * key[i, token]
                best = top[line]
                for token in range(visible):
                    scores[token] *= scale
                    best = max(best, scores[token])
                if best > top[line]:
                    shrink = np.float32(math.exp(top[line] - best))
                    total[line] *= shrink
                    for i in range(dim):
                        weighted[line, i] *= shrink
                    top[line] = best
                total[line] += _weigh(scores, powers, floats, visible, best)
                for token in range(visible):
                    for i in range(dim):
                        weighted[line, i] += scores[token] * value[token, i]
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

    page_tokens = 32

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.empty(query.shape, dtype=torch.float32)
        lse = torch.empty(query.shape[:2], dtype=torch.float32)
        tables, slots, lengths = (tensor.numpy() for tensor in (part.tables, part.slots, part.lengths))
        pages = (_bits(keys), _bits(values), np.uint32(16 if keys.dtype == torch.bfloat16 else 0))
        rows = (tables, slots, lengths, _tiles(part), np.float32(scale))
        call: Any = _attend  # a compiled function
        with _LOCK:
            call(query.float().numpy(), *pages, *rows, out.numpy(), lse.numpy())
        return out.to(query.dtype), lse
