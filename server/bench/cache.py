"""`penstock bench cache`: one decode step over a long history, by the type of the KV cache.

Steps of each type in turn, of one stream that has this many rows. What the rows hold does not change what a step
costs, so none is computed. Drives the language model by hand.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from ... import EngineConfig
from ...engine.family import Loaded
from ...engine.loading.open import load
from ...engine.plan import Draw, Feed, Plan, TableEdit
from ...engine.runner.backends import make_backend
from ...engine.runner.language import LanguageModel
from ...engine.span import Rows
from .figures import Figure, per_round, progress, setting, show
from .presets import model_folder

_TYPES = ("auto", "int8", "fp8")
_WARM = 2  # steps that are not counted: kernels are compiled in them


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    config = EngineConfig(device=options.device, dtype=options.dtype)
    loaded = load(model_folder(options.model), config)
    figures = [figure for history in options.histories for figure in _measured(loaded, config, history, options.rounds)]
    where = setting(
        "cache", options.model, str(loaded.dtype).removeprefix("torch."), str(loaded.device), options.rounds
    )
    show(where, figures, options.json)
    return 0


def _measured(loaded: Loaded, config: EngineConfig, history: int, rounds: int) -> list[Figure]:
    backend = make_backend(config, loaded.device.type)
    pages = -(-(history + 1) // backend.page_tokens)
    models = {kept: LanguageModel(loaded, pages, backend.page_tokens, 1, backend, kv_dtype=kept) for kept in _TYPES}
    edits = [TableEdit(0, 0, list(range(pages)))]
    rows = Rows(np.array([1]), np.full((3, 1), history))
    plan = Plan(0, [], [], edits, [], [], [Feed(0, 0, history, [rows], Draw())])
    times: dict[str, list[float | None]] = {kept: [] for kept in _TYPES}
    for number in range(rounds + _WARM):
        progress(f"{history} rows, round {max(0, number - _WARM + 1)} of {rounds}")
        for kept in _TYPES if number % 2 == 0 else _TYPES[::-1]:
            ms = _step(models[kept], plan)
            times[kept] += [ms] if number >= _WARM else []
    return [
        Figure(
            bench="cache",
            case=f"{history} rows",
            what=f"a step, {kept}",
            unit="ms",
            rounds=times[kept],
            against="" if kept == "auto" else "auto",
            ratios=[] if kept == "auto" else per_round(times[kept], times["auto"]),
        )
        for kept in _TYPES
    ]


def _step(language: LanguageModel, plan: Plan) -> float:
    """Milliseconds, from the plan to the token that is drawn."""
    begun = time.perf_counter()
    language.run(plan)
    return (time.perf_counter() - begun) * 1000
