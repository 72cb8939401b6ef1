"""How much faster this CPU is in bfloat16. In: a clock. Out: a factor, measured in a few milliseconds. It knows no
models.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_SHAPE = (2048, 1024)  # of a linear layer, which in float32 is larger than a core's own cache
_ROWS = (1, 8)  # of a stream that speaks, and of some that do or of a short append
_ROUNDS = 5


def bfloat16_gain(clock: Callable[[], float] = time.perf_counter) -> float:
    """How many times as fast a linear layer is in bfloat16 as in float32: the mean over few rows and more of them.

    `clock` gives seconds. Both types are timed in turn, and of each the fastest round counts: what else runs here
    slows single rounds. The first round only makes ready. One thread computes, since more would wait for each other on
    a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _gain(clock)
    finally:
        torch.set_num_threads(threads)


def _gain(clock: Callable[[], float]) -> float:
    weights = {dtype: torch.ones(_SHAPE, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    ratios = []
    with torch.inference_mode():
        for rows in _ROWS:
            times: dict[torch.dtype, list[float]] = {dtype: [] for dtype in weights}
            for _ in range(_ROUNDS):
                for dtype, weight in weights.items():
                    given = torch.ones(rows, _SHAPE[1], dtype=dtype)
                    before = clock()
                    torch.nn.functional.linear(given, weight)
                    times[dtype].append(clock() - before)
            full, half = (max(min(found[1:]), 1e-9) for found in times.values())
            ratios.append(full / half)
    return sum(ratios) / len(ratios)
