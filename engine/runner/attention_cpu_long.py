"""Long runs of appended rows on the CPU, by torch's own matrix kernel. In: one sequence's rows and pages. Out: what
they attend to.

The compiled loop (attention_cpu.py) would read the history of a long run as often as it has tiles; here a copy of the
pages and a matrix kernel are cheaper.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from .attention import merge
from .narrow import is_narrow, numbers, widened

# Rows of consecutive pages that are worth a pass of their own.
_STRETCH_ROWS = 512
# Rows of a cache in eight bits that are in floats at once.
_WIDENED_ROWS = 4096
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class LongRun(NamedTuple):
    """Rows of one sequence: its pages, and where each row begins and ends to see, as in `Part`."""

    table: torch.Tensor
    firsts: torch.Tensor | None
    lengths: torch.Tensor


def gathered(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, run: LongRun, scale: float
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
            out, lse = _flash(*own, causal=True, scale=scale)
            pieces.append((out[0].transpose(0, 1), lse[0].transpose(0, 1)))
    if not pieces:
        shape = query.shape[:2]
        blind = query.new_full(shape, float("-inf"), dtype=torch.float32)
        return query.new_zeros(*shape, numbers(values)), blind
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
    out, lse = _flash(wanted, key.transpose(0, 1)[None], value.transpose(0, 1)[None], causal=False, scale=scale)
    return (
        out.view(kv_heads, group, rows, -1).permute(2, 0, 1, 3).reshape(rows, heads, -1),
        lse.view(kv_heads, group, rows).permute(2, 0, 1).reshape(rows, heads),
    )


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    causal: bool,
    scale: float,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """torch's own kernel, `(1, heads, rows, dim)` each. It wants keys and values of one size: the smaller are filled up
    with zeros."""
    dim, wide = key.shape[3], value.shape[3]
    if dim < wide:
        query, key = (functional.pad(heads, (0, wide - dim)) for heads in (query, key))
    elif wide < dim:
        value = functional.pad(value, (0, dim - wide))
    out, lse = _FLASH(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
    return out[..., :wide], lse


def _masked(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, run: LongRun, scale: float
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
    out, lse = _flash(query.transpose(0, 1)[None], key, value, causal=False, scale=scale, mask=mask[None, None])
    blind = ~visible.any(1)  # of which the kernel makes no numbers
    out, lse = out[0].transpose(0, 1), lse[0].transpose(0, 1).float()
    return out.masked_fill(blind[:, None, None], 0.0), lse.masked_fill(blind[:, None], float("-inf"))
