"""Which tokens may be drawn, and how likely each is. In: logits and `Draw`s. Out: weights over the vocabulary.

The filters, in order: temperature, top-k, top-p (arXiv 1904.09751), min-p (arXiv 2407.01082). Tokens are ordered by
how likely they are, and equal ones by their ids. Each filter keeps the first tokens of that order:

- top-k those that are at least as likely as the k-th;
- top-p those before which less than `top_p` stands, of what top-k has left;
- min-p those that are at least `min_p` times as likely as the first.

So a filter needs no more than the first tokens of the order. On a CPU a bounded number of them is looked at, and all
tokens are put in order only where something is kept up to the last of these. Elsewhere looking would wait for the
device, and all are put in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..plan import Draw
from .blocks import largest
from .upload import upload

_FIRST = 64  # so many tokens are looked at first; for a top-k more than k
_MORE = 8  # beyond k, for tokens that are as likely as the k-th
_COLDEST = 1e-30  # a temperature below is taken for this one, which float32 can divide by


class _How(NamedTuple):
    """What the draws ask for, `(rows, 1)` each."""

    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor

    def of(self, rows: torch.Tensor) -> _How:
        return _How(*(part[rows] for part in self))


def weights(logits: torch.Tensor, most: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """How likely each token is, relative to the likeliest: `(rows, vocabulary)` float32 as `logits`, 0 where a filter
    takes it away. `most`: the largest logits, `(rows, 1)`.

    A row depends on its own logits and draw alone. Where its logits are not finite, its weights mean nothing.
    """
    asked = [(max(draw.temperature, _COLDEST), _top_k(draw, logits), draw.top_p, draw.min_p) for draw in draws]
    heat, top_k, top_p, min_p = upload(torch.tensor(asked), logits.device).split(1, 1)
    how = _How(top_k.long(), top_p, min_p)
    shares = (logits - most).div_(heat).exp_()
    widths = [_width(draw, logits) for draw in draws]
    for width in sorted(set(widths) - {0}):
        if widths == [width] * len(draws):
            _filter(shares, how, width)
        else:
            rows = upload(torch.tensor([row for row, other in enumerate(widths) if other == width]), logits.device)
            shares.index_copy_(0, rows, _filter(shares[rows], how.of(rows), width))
    return shares.mul_(_flags(torch.ge, shares, min_p)) if any(draw.min_p > 0 for draw in draws) else shares


def first_tokens(count: int) -> int:
    """How many tokens are looked at where `count` are wanted: with those that are as likely as the last of them."""
    return max(_FIRST, 1 << (count + _MORE - 1).bit_length())


def _top_k(draw: Draw, logits: torch.Tensor) -> int:
    return draw.top_k if draw.top_k < logits.shape[1] else 0


def _width(draw: Draw, logits: torch.Tensor) -> int:
    """How many tokens top-k and top-p look at first; 0 where there is neither."""
    every, top_k = logits.shape[1], _top_k(draw, logits)
    if not top_k and draw.top_p >= 1:
        return 0
    return every if logits.device.type != "cpu" else min(every, first_tokens(top_k))


def _filter(shares: torch.Tensor, how: _How, width: int) -> torch.Tensor:
    """Sets the shares `(rows, vocabulary)` to 0 that top-k and top-p take away; returns them."""
    if width == shares.shape[1]:
        return shares.mul_(_kept(shares, _in_order(shares), how, None))
    found, ids = largest(shares, width)
    last = found[:, -1:]
    tied = (how.top_k > 0) & (found.gather(1, (how.top_k - 1).clamp_min(0)) == last)  # top-k may keep more than these
    ids, order = ids.sort(-1)
    found = found.gather(1, order)
    found = found * _kept(found, _in_order(found), how, shares.sum(-1, keepdim=True))
    short = ((last > 0) & (tied | ((found > 0) & (found == last)))).any(-1).nonzero()[:, 0]
    others = _filter(shares[short], how.of(short), shares.shape[1]) if len(short) else None
    shares.zero_().scatter_(1, ids, found)
    return shares if others is None else shares.index_copy_(0, short, others)


def _kept(shares: torch.Tensor, rising: torch.Tensor, how: _How, total: torch.Tensor | None) -> torch.Tensor:
    """1 for the shares `(rows, n)`, in the order of their ids, that top-k and top-p keep, else 0. `rising`: the same in
    their own order, the largest last. `total`: the sum of all tokens' shares, where these are not all."""
    every = shares.shape[1]
    least = rising.gather(1, torch.where(how.top_k > 0, every - how.top_k, 0))
    rising = rising * _flags(torch.ge, rising, least)
    upto = rising.cumsum(-1)
    here = upto[:, -1:].contiguous()
    total = here if total is None else torch.where(how.top_k > 0, here, total)
    room = torch.where(how.top_p < 1, how.top_p * total, float("inf"))
    # `here - upto` stands before a token. The least likely one that is kept is the first of which that is below `room`.
    place = torch.searchsorted(upto, here - room, right=True).clamp_max(every - 1)
    value = torch.maximum(rising.gather(1, place), least)
    after = torch.searchsorted(rising, value, right=True)
    before = here - upto.gather(1, after - 1)
    equal = _flags(torch.eq, shares, value)
    some = equal.cumsum(-1)
    equal *= torch.le(some, ((room - before) / value).ceil().clamp_min(1), out=some)
    return equal.add_(_flags(torch.gt, shares, value))


def _in_order(shares: torch.Tensor) -> torch.Tensor:
    """From the smallest on. On a CPU NumPy sorts twenty times faster than torch, which sorts places as well."""
    if shares.device.type != "cpu":
        return shares.sort(-1).values
    return torch.from_numpy(np.sort(shares.numpy(), axis=-1))


def _flags(compare: Callable[..., Any], values: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """1 where they compare, else 0, as `values`: faster to multiply by than a mask."""
    return compare(values, other, out=torch.empty_like(values))
