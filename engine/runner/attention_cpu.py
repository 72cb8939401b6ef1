"""The CPU backend: one compiled loop over (rows, key heads) that reads each sequence's pages where they lie.

For decode rows nothing of the history is copied and nothing in Python runs per stream: numba compiles the loop once per
data type. Softmax runs on line, page by page (arXiv 1805.02867). Pages of each type are read as float32.

A small step runs in the calling thread. A large one is cut into equal shares for the threads of a pool, which sleep
while they wait: threads that spin at a barrier take the cores from whatever else the machine does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba.extending import overload

from .attention import Backend, Part, merge
from .narrow import is_narrow, widened

# Below so many multiplications (rows times history, heads and size of a head) a second thread costs more than it gives:
# about half a millisecond of one core.
_SHARED_WORK = 1 << 21
# Query rows of one sequence that share one pass over its pages.
_TILE_ROWS = 8
# A run of so many rows is attended over a copy of its pages.
_LONG_ROWS = 16
# Rows of consecutive pages that are worth a pass of their own.
_STRETCH_ROWS = 512
# Rows of a cache in eight bits that are in floats at once, for a long run.
_WIDENED_ROWS = 4096
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
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


@overload(_read, inline="always")
def _read_int8(page, bits, floats, count, dim):
    """Numbers, and behind them their scale, a byte after the other (narrow.py)."""
    if page.dtype != numba.int8:
        return None

    def read(page, bits, floats, count, dim):
        for token in range(count):
            bits[token, 0] = _scale_bits(page[token], dim)
            scale = floats[token, 0]
            for i in range(dim):
                floats[token, i] = np.float32(page[token, i]) * scale

    return read


@overload(_read, inline="always")
def _read_fp8(page, bits, floats, count, dim):
    """Bit patterns of e4m3, and behind them their scale."""
    if page.dtype != numba.uint8:
        return None

    def read(page, bits, floats, count, dim):
        for token in range(count):
            bits[token, 0] = _scale_bits(page[token], dim)
            scale = floats[token, 0]
            for i in range(dim):
                floats[token, i] = _FP8[page[token, i]] * scale

    return read


@numba.njit(nogil=True, cache=True, inline="always")
def _scale_bits(row, dim):
    """The bit pattern of the float32 behind the numbers of a row of bytes, the lowest byte first."""
    a, b, c, d = np.uint32(row[dim]), np.uint32(row[dim + 1]), np.uint32(row[dim + 2]), np.uint32(row[dim + 3])
    low = np.uint32(255)
    return a & low | (b & low) << np.uint32(8) | (c & low) << np.uint32(16) | (d & low) << np.uint32(24)


@numba.njit(nogil=True, cache=True, fastmath=_FAST, inline="always")
def _scores(wanted, key, scores, hidden, visible, dim, scale, best):
    """scores[hidden:visible] become the scaled products with `key` `(tokens, dim)`;

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
def _attend(query, keys, values, tables, slots, firsts, lengths, tiles, parts, scale, out, lse, begin, end):
    """Jobs [begin, end) of len(tiles) * parts. Each writes its own rows and heads of `out` and `lse`."""
    heads, dim = query.shape[1], query.shape[2]
    size, kv_heads = keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    span = kv_heads // parts  # key heads of one job; it reads each page once, front to back
    for job in range(begin, end):
        first, last = tiles[job // parts]
        base = job % parts * span
        count = (last - first) * group
        weighted = np.zeros((span * count, dim), np.float32)
        top = np.full(span * count, -np.inf, np.float32)
        total = np.zeros(span * count, np.float32)
        wide = (size + 3) // 4 * 4  # tokens go four at a time
        scores = np.empty(wide, np.float32)
        powers = np.empty(size, np.int32)
        key_bits = np.zeros((wide, dim), np.uint32)
        value_bits = np.zeros((wide, dim), np.uint32)
        key, value, floats = key_bits.view(np.float32), value_bits.view(np.float32), powers.view(np.float32)
        table = tables[slots[first]]
        for place in range(firsts[first] // size, (lengths[last - 1] + size - 1) // size):
            page = table[place]
            here = min(size, lengths[last - 1] - place * size)
            for side in range(span):
                head = base + side
                _read(keys[page, :, head], key_bits, key, here, dim)
                _read(values[page, :, head], value_bits, value, here, dim)
                for row in range(first, last):
                    hidden, visible = max(0, firsts[row] - place * size), min(size, lengths[row] - place * size)
                    if visible <= hidden:
                        continue
                    for column in range(group):
                        line = side * count + (row - first) * group + column
                        wanted = query[row, head * group + column]
                        best = _scores(wanted, key, scores, hidden, visible, dim, scale, top[line])
                        if best > top[line]:
                            shrink = np.float32(math.exp(top[line] - best))
                            total[line] *= shrink
                            for i in range(dim):
                                weighted[line, i] *= shrink
                            top[line] = best
                        total[line] += _weigh(scores, powers, floats, hidden, visible, best)
                        scores[:hidden] = 0
                        scores[visible:] = 0
                        _gather(weighted[line], value, scores, hidden, visible, dim)
        for side in range(span):
            for row in range(first, last):
                for column in range(group):
                    line = side * count + (row - first) * group + column
                    place = (base + side) * group + column
                    lse[row, place] = top[line] + math.log(total[line]) if total[line] > 0 else -np.inf
                    part = 1 / total[line] if total[line] > 0 else np.float32(0)
                    for i in range(dim):
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


class _LongRun(NamedTuple):
    """Rows of one sequence: its pages, and where each row begins and ends to see, as in `Part`."""

    table: torch.Tensor
    firsts: torch.Tensor | None
    lengths: torch.Tensor


def _gathered(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, run: _LongRun, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A long run of one sequence, `(rows, heads, dim)`, by torch's own kernel in the type of the pages.

    Mostly its rows see from the same row on, and one row more of the history each, or all the same. Then what all see
    needs no mask and has no order: long stretches of pages that follow one another are read where they lie, the others
    as one copy. It is merged with the run's own triangle by their log-sum-exp. Else a mask says what each row sees.
    """
    table, firsts, lengths = run
    size, first, last = keys.shape[1], 0 if firsts is None else int(firsts[0]), int(lengths[-1])
    if not is_narrow(keys.dtype):
        query = query.to(keys.dtype)
    rises = lengths.diff()
    even = not rises.any()
    if (firsts is not None and (firsts != first).any()) or not (even or (rises == 1).all()):
        return _masked(query, keys, values, run, scale)
    common = last if even else int(lengths[0]) - 1
    whole = _in_floats(_whole_pages(keys, values, table, first, common), query.dtype)
    pieces = [_common(query, key, value, scale) for key, value in whole]
    rest = common // size * size if common // size > first // size else first
    if last > rest:
        key, value = (widened(_rows(pool, table, rest, last), query.dtype) for pool in (keys, values))
        left = common - rest
        if left:
            pieces.append(_common(query, key[:left], value[:left], scale))
        if not even:
            own = (rows.transpose(0, 1)[None] for rows in (query, key[left:], value[left:]))
            out, lse = _FLASH(*own, 0.0, True, scale=scale)
            pieces.append((out[0].transpose(0, 1), lse[0].transpose(0, 1)))
    if not pieces:
        return torch.zeros_like(query), query.new_full(query.shape[:2], float("-inf"), dtype=torch.float32)
    return merge([out for out, _ in pieces], [lse.float() for _, lse in pieces])


def _rows(pool: torch.Tensor, table: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """A copy of rows `[first, last)` of a sequence, `(rows, kv_heads, dim)`."""
    size = pool.shape[1]
    start = first // size
    return pool[table[start : -(-last // size)].long()].flatten(0, 1)[first - start * size : last - start * size]


def _whole_pages(
    keys: torch.Tensor, values: torch.Tensor, table: torch.Tensor, first: int, common: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values `(n, kv_heads, dim)` of rows `[first, common)` up to the end of the last whole page, in pieces.
    None where these rows lie in one page."""
    size = keys.shape[1]
    start, stop = -(-first // size), common // size
    if stop <= first // size:
        return []
    pieces = _stretches(keys, values, table[start:stop].long().numpy())
    if first % size:
        pieces.append((_rows(keys, table, first, start * size), _rows(values, table, first, start * size)))
    return pieces


def _in_floats(
    pieces: list[tuple[torch.Tensor, torch.Tensor]], dtype: torch.dtype
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same, of a cache in eight bits a copy in `dtype` of a few rows at a time."""
    for key, value in pieces:
        step = _WIDENED_ROWS if is_narrow(key.dtype) else len(key)
        for start in range(0, len(key), step):
            here = slice(start, start + step)
            yield widened(key[here], dtype), widened(value[here], dtype)


def _stretches(keys: torch.Tensor, values: torch.Tensor, pages: np.ndarray) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values `(n, kv_heads, dim)` of these pages in pieces: views of long stretches, a copy of the rest."""
    if not len(pages):
        return []
    edges = [0, *(np.flatnonzero(np.diff(pages) != 1) + 1).tolist(), len(pages)]
    found, rest = [], []
    for start, stop in zip(edges, edges[1:], strict=False):
        if (stop - start) * keys.shape[1] >= _STRETCH_ROWS:
            here = slice(int(pages[start]), int(pages[start]) + stop - start)
            found.append((keys[here].flatten(0, 1), values[here].flatten(0, 1)))
        else:
            rest.append(pages[start:stop])
    if rest:
        index = torch.from_numpy(np.concatenate(rest))
        found.append((keys[index].flatten(0, 1), values[index].flatten(0, 1)))
    return found


def _common(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that all see the same: the query heads that share a key head are taken as rows more, so that it is read
    once for them."""
    (rows, heads, dim), kv_heads = query.shape, key.shape[1]
    group = heads // kv_heads
    wanted = query.view(rows, kv_heads, group, dim).permute(1, 2, 0, 3).reshape(1, kv_heads, group * rows, dim)
    out, lse = _FLASH(wanted, key.transpose(0, 1)[None], value.transpose(0, 1)[None], 0.0, False, scale=scale)
    return (
        out.view(kv_heads, group, rows, dim).permute(2, 0, 1, 3).reshape(rows, heads, dim),
        lse.view(kv_heads, group, rows).permute(2, 0, 1).reshape(rows, heads),
    )


def _masked(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, run: _LongRun, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A long run whose rows see whatever its firsts and lengths say, over a copy of its pages."""
    table, firsts, lengths = run
    size, last = keys.shape[1], int(lengths[-1])
    skipped = 0 if firsts is None else int(firsts[0]) // size
    start = skipped * size
    pages = table[skipped : -(-last // size)].long()
    copies = (widened(pool[pages].flatten(0, 1)[: last - start], query.dtype) for pool in (keys, values))
    key, value = (copy[None].transpose(1, 2) for copy in copies)
    places = torch.arange(start, last)
    visible = places < lengths[:, None]
    if firsts is not None:
        visible &= places >= firsts[:, None]
    mask = torch.zeros(visible.shape, dtype=query.dtype).masked_fill_(~visible, float("-inf"))
    out, lse = _FLASH(query.transpose(0, 1)[None], key, value, 0.0, False, attn_mask=mask[None, None], scale=scale)
    blind = ~visible.any(1)  # of which the kernel makes no numbers
    out, lse = out[0].transpose(0, 1), lse[0].transpose(0, 1).float()
    return out.masked_fill(blind[:, None, None], 0.0), lse.masked_fill(blind[:, None], float("-inf"))


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
        """Adds the tiles of the short runs, and the long runs that see anything, both `(n, 2)` int64."""
        short, long = [], []
        for start, stop in part.runs.numpy().tolist():
            is_long = stop - start >= _LONG_ROWS and int(part.lengths[start])
            (long if is_long else short).append((start, stop))
        return part._replace(made=[_tiles(short), _pairs(long)])

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tiles, long = part.made
        # Numpy's arrays are made in a fraction of the time that torch's tensors take.
        out, lse = np.empty(query.shape, np.float32), np.empty(query.shape[:2], np.float32)
        for start, stop in long.numpy().tolist():
            firsts = None if part.firsts is None else part.firsts[start:stop]
            rows = slice(start, stop)
            run = _LongRun(part.tables[part.slots[start]], firsts, part.lengths[rows])
            both = _gathered(query[rows], keys, values, run, scale)
            out[rows], lse[rows] = both[0].float().numpy(), both[1].numpy()
        if len(tiles):
            self._compiled(query, keys, values, part, tiles.numpy(), scale, out, lse)
        return torch.from_numpy(out).to(query.dtype), torch.from_numpy(lse)

    def _compiled(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        part: Part,
        tiles: np.ndarray,
        scale: float,
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
        kernel: Any = _attend  # a compiled function

        def run(share: int) -> None:
            begin, end = share * jobs // shares, (share + 1) * jobs // shares
            kernel(
                wanted, *pages, tables, slots, firsts, lengths, tiles, parts, np.float32(scale), out, lse, begin, end
            )

        others = [self._pool.submit(run, share) for share in range(1, shares)] if self._pool is not None else []
        run(0)
        for other in others:
            other.result()
