"""The CUDA backend: a Triton kernel that attends decode rows and appended rows alike, reading pages where they lie.

A program takes a tile of consecutive query rows of one sequence, one key head and one share of the history; the query
heads that share the key head are attended together, so that keys are loaded once (M = rows x heads a key head). The
softmax runs on line in float32. Where there are fewer programs than the device takes at once, histories are split and
a second kernel merges the shares by their log-sum-exp (Flash-Decoding).

Nothing here reads a tensor back to the host: tiles are cut there once for all layers, lengths stay on the device. Under
`TRITON_INTERPRET=1`, set before Triton is imported, the kernels run on a CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from .attention import Backend, Part
from .narrow import KV_DTYPES, SCALE_BYTES, numbers
from .upload import upload

# Where a run is long enough, so many (row, head) pairs share the loads of keys; decode rows need no more than the
# least that the tensor cores take.
_WIDE, _NARROW = 64, 16
# Bytes of keys that one turn of the loop loads, and the most tokens of it.
_LOAD_BYTES, _LOAD_TOKENS = 16_384, 64
# A history is split into shares of no fewer tokens, and no more shares than this.
_SHARE_TOKENS, _SHARES = tl.constexpr(256), 16
_ROWS_A_TILE_MORE = 4  # rows of a long run for which there is one tile more in a recording
_MERGED = 16  # (row, head) pairs whose shares a program merges
_SCALE_BYTES = tl.constexpr(SCALE_BYTES)
_KEPT = {dtype: name for name, dtype in KV_DTYPES.items()}
_LOG2_E, _LN_2 = 1.4426950408889634, tl.constexpr(0.6931471805599453)
_TWICE_LOG2_E = tl.constexpr(2 * 1.4426950408889634)  # of tanh


@triton.jit
def _numbers(stored, query, KEPT: tl.constexpr):
    """What the cache holds as numbers of the queries' type, which has them all. Those of int8 become a 128th of what
    they are, so that their scales go into a float16; those of e4m3 a 256th, as their exponent is eight too small in
    one."""
    if KEPT == "int8":
        stored = (stored.to(tl.float32) / 128.0).to(query.dtype)
    elif KEPT == "fp8":
        bits = stored.to(tl.uint16)
        stored = (((bits & 128) << 8) | ((bits & 127) << 7)).to(tl.float16, bitcast=True).to(query.dtype)
    return stored


@triton.jit
def _scales(places, held, KEPT: tl.constexpr):
    """The scales that lie there (narrow.py), for what `_numbers` gives."""
    scales = tl.load(places.to(tl.pointer_type(tl.float32)), mask=held, other=0.0)
    return scales * (256.0 if KEPT == "fp8" else 128.0)


@triton.jit
def _reach(
    lengths, firsts, row, here, share, shares, BLOCK_N: tl.constexpr, WINDOWED: tl.constexpr, SPLIT: tl.constexpr
):  # fmt: skip
    """Where the rows of a tile end and begin to see, and from where to where this share of the history goes."""
    ends = tl.load(lengths + row, mask=here, other=0)
    begins = tl.zeros_like(ends)
    if WINDOWED:
        begins = tl.load(firsts + row, mask=here, other=2147483647)
    high = tl.max(ends, 0)
    low = tl.minimum(tl.min(begins, 0) // BLOCK_N * BLOCK_N, high)  # the same in a tile of no row
    if SPLIT:
        each = tl.maximum(tl.cdiv(high - low, shares), _SHARE_TOKENS)
        each = tl.cdiv(each, BLOCK_N) * BLOCK_N
        low += share * each
        high = tl.minimum(high, low + each)
    return ends, begins, low, high


# What differs from step to step is not compiled in: each set of compiled sizes stops the streams for up to seconds.
@triton.jit(
    do_not_specialize=["table_stride", "rows", "shares"],
    do_not_specialize_on_alignment=["tables", "slots", "lengths", "firsts", "tiles", "lse"],
)
def _attend(
    query, keys, values, tables, slots, lengths, firsts, tiles, out, lse,
    table_stride, rows, shares, scale, cap,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr, PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_W: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr, SPLIT: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """One tile (axis 0), key head (axis 1), share of the history (axis 2). `scale` and `cap` are for exp2. Of shares:
    out, lse. KEPT: "floats", or as `EngineConfig.kv_dtype` has it."""
    tile, kv_head, share = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    GROUP: tl.constexpr = HEADS // KV_HEADS
    MORE: tl.constexpr = _SCALE_BYTES * (KEPT != "floats")
    start, stop = tl.load(tiles + tile * 2), tl.load(tiles + tile * 2 + 1)
    table = tables + tl.load(slots + start).to(tl.int64) * table_stride

    pairs = tl.arange(0, BLOCK_M)  # pair m is row m // GROUP of the tile and head m % GROUP of the key head
    row = start + pairs // GROUP
    here = row < stop
    line = row.to(tl.int64) * HEADS + kv_head * GROUP + pairs % GROUP
    places, wide = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_W)
    inside, filled = places < DIM, wide < WIDE
    q = tl.load(query + line[:, None] * DIM + places[None, :], mask=here[:, None] & inside[None, :], other=0.0)

    reach = _reach(lengths, firsts, row, here, share, shares, BLOCK_N, WINDOWED, SPLIT)
    ends, begins, low, high = reach[0], reach[1], reach[2], reach[3]
    best, total = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)
    weighted = tl.zeros([BLOCK_M, BLOCK_W], tl.float32)
    for first in range(low, high, BLOCK_N):
        token = first + tl.arange(0, BLOCK_N)
        held = token < high
        page = tl.load(table + token // PAGE, mask=held, other=0).to(tl.int64)
        base = (page * PAGE + token % PAGE) * KV_HEADS + kv_head
        own, its = base * (DIM + MORE), base * (WIDE + MORE)  # where the key begins, and the value
        k = tl.load(keys + own[None, :] + places[:, None], mask=held[None, :] & inside[:, None], other=0)
        v = tl.load(values + its[:, None] + wide[None, :], mask=held[:, None] & filled[None, :], other=0)
        k, v = _numbers(k, q, KEPT), _numbers(v, q, KEPT)
        scores = tl.dot(q, k, input_precision="ieee") * scale
        if MORE:
            scores *= _scales(keys + own + DIM, held, KEPT)[None, :]
        if CAPPED:
            scores = cap * (1.0 - 2.0 / (tl.exp2(scores / cap * _TWICE_LOG2_E) + 1.0))
        visible = (token[None, :] >= begins[:, None]) & (token[None, :] < ends[:, None]) & held[None, :]
        scores = tl.where(visible, scores, float("-inf"))
        peak = tl.maximum(best, tl.max(scores, 1))
        safe = tl.where(peak == float("-inf"), 0.0, peak)  # a row that has seen nothing yet
        shrink, weights = tl.exp2(best - safe), tl.exp2(scores - safe[:, None])
        total = total * shrink + tl.sum(weights, 1)
        if MORE:
            weights *= _scales(values + its + WIDE, held, KEPT)[None, :]
        weighted = weighted * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        best = peak

    seen = total > 0
    divisor = tl.where(seen, total, 1.0)
    line += share.to(tl.int64) * rows * HEADS
    result = (weighted / divisor[:, None]).to(out.dtype.element_ty)
    tl.store(out + line[:, None] * WIDE + wide[None, :], result, mask=here[:, None] & filled[None, :])
    tl.store(lse + line, tl.where(seen, (best + tl.log2(divisor)) * _LN_2, float("-inf")), mask=here)


@triton.jit(do_not_specialize=["lines", "shares"], do_not_specialize_on_alignment=["sums", "lse"])
def _merge(parts, sums, out, lse, lines, shares, DIM: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr):
    """`parts` `(shares, lines, DIM)` and `sums` `(shares, lines)` to one softmax a line, which is a row and a head;
    `BLOCK_L` lines a program."""
    line = tl.program_id(0).to(tl.int64) * BLOCK_L + tl.arange(0, BLOCK_L)
    here = line < lines
    places = tl.arange(0, BLOCK_D)
    mine = here[:, None] & (places < DIM)[None, :]
    best = tl.full([BLOCK_L], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_L], tl.float32)
    weighted = tl.zeros([BLOCK_L, BLOCK_D], tl.float32)
    at = line
    for _ in range(shares):
        own = tl.load(sums + at, mask=here, other=float("-inf"))
        part = tl.load(parts + at[:, None] * DIM + places[None, :], mask=mine, other=0.0)
        peak = tl.maximum(best, own)
        safe = tl.where(peak == float("-inf"), 0.0, peak)
        shrink, weight = tl.exp(best - safe), tl.exp(own - safe)
        weighted = weighted * shrink[:, None] + part * weight[:, None]
        total = total * shrink + weight
        best = peak
        at += lines
    seen = total > 0
    divisor = tl.where(seen, total, 1.0)
    result = (weighted / divisor[:, None]).to(out.dtype.element_ty)
    tl.store(out + line[:, None] * DIM + places[None, :], result, mask=mine)
    tl.store(lse + line, tl.where(seen, best + tl.log(divisor), float("-inf")), mask=here)


def _tiles(runs: list[list[int]], rows: int) -> np.ndarray:
    """Runs in pieces of so many rows, start and stop of each, `(tiles, 2)` int32."""
    cut = [(first, min(first + rows, stop)) for start, stop in runs for first in range(start, stop, rows)]
    return np.array(cut, dtype=np.int32)


def _with_empty(tiles: np.ndarray, count: int) -> np.ndarray:
    """So many tiles: those that are missing are of no row."""
    return np.concatenate([tiles, np.zeros((count - len(tiles), 2), np.int32)])


def _power(count: int) -> int:
    """The least power of two that is no smaller."""
    return 1 << (count - 1).bit_length()


class TritonBackend(Backend):
    """Attention on CUDA over pages in float32, float16, bfloat16 or eight bits; sums are taken in float32.

    `programs`: how many the device should have at once, or histories are split. Query, keys and values are contiguous.
    """

    page_tokens = 16

    def __init__(self, programs: int) -> None:
        self._programs = programs

    def prepare(self, part: Part, ends: np.ndarray | None, group: int) -> Part:
        """Adds tiles, the runs in pieces of a few rows: start and stop, `(tiles, 2)` int32 on the device; and on the
        host how many rows these are and how many pieces, `(2,)`. Behind a long run whose ends are not known come empty
        tiles: others may take its place, in more pieces."""
        runs = part.runs.numpy().tolist()
        longest = max(stop - start for start, stop in runs)
        rows = max(1, (_NARROW if longest * group <= _NARROW else _WIDE) // group)
        tiles = _tiles(runs, rows)
        sizes = np.array([rows, len(tiles)])
        if ends is None and longest > 1:
            tiles = _with_empty(tiles, len(tiles) + longest // _ROWS_A_TILE_MORE)
        return part._replace(made=[upload(torch.from_numpy(tiles), part.lengths.device), torch.from_numpy(sizes)])

    def refill(self, made: list[torch.Tensor], part: Part, group: int) -> bool:
        held, sizes = made
        tiles = _tiles(part.runs.numpy().tolist(), int(sizes.numpy()[0]))
        if len(tiles) > len(held):
            return False
        held.copy_(upload(torch.from_numpy(_with_empty(tiles, len(held))), held.device), non_blocking=True)
        return True

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float, cap: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, heads, dim = query.shape
        (_, page_tokens, kv_heads, _), wide = keys.shape, numbers(values)
        group = heads // kv_heads
        tiles, (most, pieces) = part.made[0], part.made[1].numpy().tolist()
        block_m = max(_NARROW, _power(most * group))
        shares = min(_SHARES, max(1, self._programs // (pieces * kv_heads)))
        block_d, block_w = max(16, _power(dim)), max(16, _power(wide))
        block_n = max(16, min(_LOAD_TOKENS, _LOAD_BYTES // (max(block_d, block_w) * query.element_size())))
        whole, total = query.new_empty(rows, heads, wide), query.new_empty((rows, heads), dtype=torch.float32)
        out, lse = whole, total
        if shares > 1:
            out, lse = (tensor.new_empty((shares, *tensor.shape), dtype=torch.float32) for tensor in (whole, total))
        firsts = part.lengths if part.firsts is None else part.firsts
        attend: Any = _attend  # compiled at its first call for each set of sizes
        attend[len(tiles), kv_heads, shares](
            query, keys, values, part.tables, part.slots, part.lengths, firsts, tiles, out, lse,
            part.tables.stride(0), rows, shares, scale * _LOG2_E, cap * _LOG2_E,
            HEADS=heads, KV_HEADS=kv_heads, DIM=dim, WIDE=wide, PAGE=page_tokens,
            BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_D=block_d, BLOCK_W=block_w,
            WINDOWED=part.firsts is not None, CAPPED=cap > 0, SPLIT=shares > 1, KEPT=_KEPT.get(keys.dtype, "floats"),
        )  # fmt: skip
        if shares > 1:
            lines = rows * heads
            join: Any = _merge
            join[triton.cdiv(lines, _MERGED),](
                out, lse, whole, total, lines, shares, DIM=wide, BLOCK_L=_MERGED, BLOCK_D=block_w
            )
        return whole, total
