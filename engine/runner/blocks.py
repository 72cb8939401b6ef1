"""The largest of many values, by blocks of neighbours. In: values `(rows, n)`. Out: where the largest are.

On a CPU the largest value of each block is found many times faster than its place, or the order of all values. So one
pass finds the blocks' largest values, and only blocks that can matter are looked into. What torch has for this is
fast on other devices, and is used there.
"""

from __future__ import annotations

import torch

BLOCK = 128
_NOTHING = float("-inf")


def best(values: torch.Tensor) -> torch.Tensor:
    """The place of each row's largest value, `(rows,)` int64: the first of equal ones. A NaN is larger than all."""
    if values.device.type != "cpu":
        return values.argmax(-1)
    places, inside = _inside(values, _peaks(values).argmax(-1, keepdim=True))
    return places.gather(1, inside.argmax(-1, keepdim=True))[:, 0]


def largest(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest values of each row, from the largest on, and their places: `(rows, count)` each. Of equal
    values any may be left out at the end; those that are here come by their places."""
    count = min(count, values.shape[1])
    if values.device.type != "cpu" or 2 * count * BLOCK > values.shape[1]:
        found, places = values.topk(count)
    else:
        places, inside = _inside(values, _peaks(values).topk(count).indices)
        found, chosen = inside.topk(count)
        places = places.gather(1, chosen)
    places, order = places.sort(-1)
    found, order = found.gather(1, order).sort(dim=-1, descending=True, stable=True)
    return found, places.gather(1, order)


def blocks(values: torch.Tensor) -> torch.Tensor:
    """The values as `(rows, blocks, BLOCK)`, followed by zeros."""
    missing = -values.shape[1] % BLOCK
    return (torch.nn.functional.pad(values, (0, missing)) if missing else values).unflatten(1, (-1, BLOCK))


def _peaks(values: torch.Tensor) -> torch.Tensor:
    """The largest value of each block, `(rows, blocks)`."""
    whole = values.shape[1] // BLOCK * BLOCK
    peaks = values[:, :whole].unflatten(1, (-1, BLOCK)).amax(-1)
    return peaks if whole == values.shape[1] else torch.cat([peaks, values[:, whole:].amax(-1, keepdim=True)], 1)


def _inside(values: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All places of the `chosen` blocks `(rows, c)` and the values there, `(rows, c * BLOCK)`; minus infinity past a
    row's end."""
    places = (chosen[:, :, None] * BLOCK + torch.arange(BLOCK, device=values.device)).flatten(1)
    last = values.shape[1] - 1
    return places, values.gather(1, places.clamp_max(last)).masked_fill(places > last, _NOTHING)
