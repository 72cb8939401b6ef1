"""The CPU backend: one compiled loop over (rows, key heads) that reads each sequence's pages where they lie.

For decode rows nothing of the history is copied and nothing in Python runs per stream: numba compiles the loop once per
data type. Softmax runs on line, page by page (arXiv 1805.02867). Pages of each type are read as float32.

A small step runs in the calling thread. A large one is cut into equal shares for the threads of a pool, which sleep
while they wait: threads that spin at a barrier take the cores from whatever else the machine does.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload

from .attention import Backend, Part
from .attention_cpu_long import LongRun, gathered
from .narrow import numbers

# Below so many multiplications (rows times history, heads and size of a head) a second thread costs more than it gives:
# about half a millisecond of one core.
_SHARED_WORK = 1 << 21
# Query rows of one sequence that share one pass over its pages.
_TILE_ROWS = 8
# A run of so many rows is attended over a copy of its pages.
_LONG_ROWS = 16
# Where each query head has a key head of its own, the loop uses what it reads once: over so long a history in float32
# the matrix kernel is faster for any run. In other types it is slower.
_LONG_HISTORY = 512
# What each bit pattern of e4m3 stands for.
_FP8 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
_FAST = {"reassoc", "contract", "arcp", "nsz"}


@numba.njit(nogil=True, cache=True, fastmath=_FAST, inline="always")
def _weigh(scores, powers, floats, first, count, best):
    """scores[first:count] become exp(scores - best), all at most 1; returns their sum.

    exp(x) = 2^k * exp(r): k rounds x / ln 2, r lies in [-ln 2 / 2, ln 2 / 2] where a polynomial of degree 6 has
    float32's precision (Cephes `expf`). `powers` (int32) and `floats` (float32) are two views of one buffer, in which
    2^k is made.
    """
    for token in range(first, count):
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
    for token in range(first, count):
        scores[token] *= floats[token]
        total += scores[token]
    return total


def _read(page, bits, floats, count, dim):
    """`page` `(n, width)` of one page and head as float32 into `floats` `(n, dim)`; `bits` is the same buffer as
    uint32. Compiled for each type of page."""


@overload(_read, inline="always")
def _read_bits(page, bits, floats, count, dim):
    """A float32 has its bit pattern, a bfloat16 the upper half of it."""
    if page.dtype not in (numba.uint32, numba.uint16):
        return None
    shift = np.uint32(32 - page.dtype.bitwidth)

    def read(page, bits, floats, count, dim):
        for token in range(count):
            for i in range(dim):
                bits[token, i] = np.uint32(page[token, i]) << shift

    return read


@numba.njit(nogil=True, cache=True, inline="always")
def _of_int8(byte):
    return np.float32(byte)


@numba.njit(nogil=True, cache=True, inline="always")
def _of_fp8(byte):
    return _FP8[byte]


@overload(_read, inline="always")
def _read_bytes(page, bits, floats, count, dim):
    """Numbers in int8 or bit patterns of e4m3, and behind them their scale, a byte after the other (narrow.py)."""
    if page.dtype not in (numba.int8, numba.uint8):
        return None
    number = _of_int8 if page.dtype == numba.int8 else _of_fp8

    def read(page, bits, floats, count, dim):
        for token in range(count):
            bits[token, 0] = _scale_bits(page[token], dim)
            scale = floats[token, 0]
            for i in range(dim):
                floats[token, i] = number(page[token, i]) * scale

    return read


@numba.njit(nogil=True, cache=True, inline="always")
def _scale_bits(row, dim):
    """The bit pattern of the float32 behind the numbers of a row of bytes, the lowest byte first."""
    a, b, c, d = np.uint32(row[dim]), np.uint32(row[dim + 1]), np.uint32(row[dim + 2]), np.uint32(row[dim + 3])
    low = np.uint32(255)
    return a & low | (b & low) << np.uint32(8) | (c & low) << np.uint32(16) | (d & low) << np.uint32(24)


@numba.njit(nogil=True, cache=True, fastmath=_FAST, inline="always")
def _scores(wanted, key, scores, hidden, visible, dim, scale, cap, best):
    """scores[hidden:visible] become the scaled products with `key` `(tokens, dim)`, capped where `cap` is not 0;

    returns the largest, or `best` if larger.
    """
    for token in range(hidden // 4 * 4, visible, 4):  # four at a time share the loads of the query
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for i in range(dim):
            a += wanted[i] * key[token, i]
            b += wanted[i] * key[token + 1, i]
            c += wanted[i] * key[token + 2, i]
            d += wanted[i] * key[token + 3, i]
        scores[token], scores[token + 1], scores[token + 2], scores[token + 3] = a, b, c, d
    for token in range(hidden, visible):
        scores[token] *= scale
        if cap > 0:
            scores[token] = cap * np.float32(math.tanh(scores[token] / cap))
        best = max(best, scores[token])
    return best


@numba.njit(nogil=True, cache=True, fastmath=_FAST, inline="always")
def _gather(weighted, value, scores, hidden, visible, dim):
    """weighted `(dim,)` grows by the weighted rows of `value` `(tokens, dim)`; weights outside are 0."""
    for token in range(hidden // 4 * 4, visible, 4):
        a, b, c, d = scores[token], scores[token + 1], scores[token + 2], scores[token + 3]
        for i in range(dim):
            weighted[i] += (
                a * value[token, i] + b * value[token + 1, i] + c * value[token + 2, i] + d * value[token + 3, i]
            )


@numba.njit(fastmath=_FAST, nogil=True, cache=True)
def _attend(query, keys, values, tables, slots, firsts, lengths, tiles, parts, scale, cap, out, lse, begin, end):
    """Jobs [begin, end) of len(tiles) * parts. Each writes its own rows and heads of `out` and `lse`."""
    heads, dim, deep = query.shape[1], query.shape[2], out.shape[2]
    size, kv_heads = keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    span = kv_heads // parts  # key heads of one job; it reads each page once, front to back
    for job in range(begin, end):
        first, last = tiles[job // parts]
        base = job % parts * span
        count = (last - first) * group
        weighted = np.zeros((span * count, deep), np.float32)
        top = np.full(span * count, -np.inf, np.float32)
        total = np.zeros(span * count, np.float32)
        wide = (size + 3) // 4 * 4  # tokens go four at a time
        scores = np.empty(wide, np.float32)
        powers = np.empty(size, np.int32)
        key_bits = np.zeros((wide, dim), np.uint32)
        value_bits = np.zeros((wide, deep), np.uint32)
        key, value, floats = key_bits.view(np.float32), value_bits.view(np.float32), powers.view(np.float32)
        table = tables[slots[first]]
        for place in range(firsts[first] // size, (lengths[last - 1] + size - 1) // size):
            page = table[place]
            here = min(size, lengths[last - 1] - place * size)
            for side in range(span):
                head = base + side
                _read(keys[page, :, head], key_bits, key, here, dim)
                _read(values[page, :, head], value_bits, value, here, deep)
                for row in range(first, last):
                    hidden, visible = max(0, firsts[row] - place * size), min(size, lengths[row] - place * size)
                    if visible <= hidden:
                        continue
                    for column in range(group):
                        line = side * count + (row - first) * group + column
                        wanted = query[row, head * group + column]
                        best = _scores(wanted, key, scores, hidden, visible, dim, scale, cap, top[line])
                        if best > top[line]:
                            shrink = np.float32(math.exp(top[line] - best))
                            total[line] *= shrink
                            for i in range(deep):
                                weighted[line, i] *= shrink
                            top[line] = best
                        total[line] += _weigh(scores, powers, floats, hidden, visible, best)
                        scores[:hidden] = 0
                        scores[visible:] = 0
                        _gather(weighted[line], value, scores, hidden, visible, deep)
        for side in range(span):
            for row in range(first, last):
                for column in range(group):
                    line = side * count + (row - first) * group + column
                    place = (base + side) * group + column
                    lse[row, place] = top[line] + math.log(total[line]) if total[line] > 0 else -np.inf
                    part = 1 / total[line] if total[line] > 0 else np.float32(0)
                    for i in range(deep):
                        out[row, place, i] = weighted[line, i] * part


def _tiles(runs: list[tuple[int, int]]) -> torch.Tensor:
    """Cut runs into tiles of a few rows, `(tiles, 2)`: first and last row, half open."""
    tiles = [(first, min(first + _TILE_ROWS, stop)) for start, stop in runs for first in range(start, stop, _TILE_ROWS)]
    return _pairs(tiles)


def _pairs(runs: list[tuple[int, int]]) -> torch.Tensor:
    return torch.from_numpy(np.array(runs, dtype=np.int64).reshape(-1, 2))


def _bits(tensor: torch.Tensor) -> np.ndarray:
    """The pages' bit patterns, sharing their memory: uint32 for float32, uint16 for bfloat16; bytes as they are."""
    patterns = {torch.float32: torch.uint32, torch.bfloat16: torch.uint16}
    return tensor.view(patterns.get(tensor.dtype, tensor.dtype)).numpy()


class CpuBackend(Backend):
    """Attention on the CPU over pages in float32, bfloat16 or eight bits; sums are taken in float32.

    Decode rows and short runs go through the compiled loop. A long run of appended rows would read its history as often
    as it has tiles; there a copy of the pages and a matrix kernel are cheaper. `threads` share a large step.
    """

    page_tokens = 32

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "penstock-attention") if threads > 1 else None

    def prepare(self, part: Part, ends: np.ndarray | None, group: int) -> Part:
        """Adds `(n, 2)` int64: the tiles of all runs, and for pages in float32 and for those of other types the tiles
        of the short runs, and the long runs that see anything."""
        short, long, far = [], [], []
        for start, stop in part.runs.numpy().tolist():
            seen = int(part.lengths[start])
            is_far = group == 1 and seen >= _LONG_HISTORY
            (long if stop - start >= _LONG_ROWS and seen else far if is_far else short).append((start, stop))
        tiles, pairs = _tiles(short), _pairs(long)
        more = torch.cat([tiles, _tiles(far)]) if far else tiles
        every = torch.cat([more, _tiles(long)]) if long else more
        return part._replace(made=[every, tiles, torch.cat([pairs, _pairs(far)]) if far else pairs, more, pairs])

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float, cap: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        every, *exact, more, few = part.made
        tiles, long = exact if keys.dtype == torch.float32 else (more, few)
        if cap:  # which the matrix kernel does not know
            tiles, long = every, long[:0]
        # Numpy's arrays are made in a fraction of the time that torch's tensors take.
        shape = query.shape[:2]
        out, lse = np.empty((*shape, numbers(values)), np.float32), np.empty(shape, np.float32)
        for start, stop in long.numpy().tolist():
            firsts = None if part.firsts is None else part.firsts[start:stop]
            rows = slice(start, stop)
            run = LongRun(part.tables[part.slots[start]], firsts, part.lengths[rows])
            both = gathered(query[rows], keys, values, run, scale)
            out[rows], lse[rows] = both[0].float().numpy(), both[1].numpy()
        if len(tiles):
            self._compiled(query, keys, values, part, tiles.numpy(), (scale, cap), out, lse)
        return torch.from_numpy(out).to(query.dtype), torch.from_numpy(lse)

    def _compiled(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        part: Part,
        tiles: np.ndarray,
        scale_and_cap: tuple[float, float],
        out: np.ndarray,
        lse: np.ndarray,
    ) -> None:
        tables, slots, lengths = (tensor.numpy() for tensor in (part.tables, part.slots, part.lengths))
        firsts = np.zeros_like(lengths) if part.firsts is None else part.firsts.numpy()
        pages = (_bits(keys), _bits(values))
        shares = 1
        if self._threads > 1 and int((lengths - firsts).sum()) * query.shape[1] * query.shape[2] >= _SHARED_WORK:
            shares = min(self._threads, torch.get_num_threads())
        # One job per tile streams whole pages; where tiles are fewer than threads, the key heads are shared out too.
        parts = 1 if shares == 1 or len(tiles) >= 2 * shares else keys.shape[2]
        jobs = len(tiles) * parts
        wanted = query.float().numpy()
        numbers = [np.float32(number) for number in scale_and_cap]
        kernel: Any = _attend  # a compiled function

        def run(share: int) -> None:
            begin, end = share * jobs // shares, (share + 1) * jobs // shares
            kernel(wanted, *pages, tables, slots, firsts, lengths, tiles, parts, *numbers, out, lse, begin, end)

        others = [self._pool.submit(run, share) for share in range(1, shares)] if self._pool is not None else []
        run(0)
        for other in others:
            other.result()
