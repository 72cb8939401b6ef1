"""Cases measured on Penstock alone, on the public `Engine` in this process. In: cases. Out: their figures, printed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

from .cases import Case, Measured, measure
from .figures import Figure, setting, show
from .peers.on_penstock import Penstock
from .presets import model_folder


async def measure_alone(
    bench: str,
    options: argparse.Namespace,
    cases: list[Case],
    figures: Callable[[list[Case], Measured], Iterator[Figure]],
) -> int:
    """Measure the cases and print their figures; 0."""
    engine = await Penstock.load(model_folder(options.model), options.dtype, options.device)
    try:
        measured = await measure({"penstock": engine.run}, cases, options.rounds)
    finally:
        await engine.close()
    info = engine.engine.info
    where = setting(bench, options.model, info.dtype, info.device, options.rounds)
    show(where, figures(cases, measured["penstock"]), options.json)
    return 0
