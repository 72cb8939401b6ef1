"""What guessed tokens are worth: the time per token in an engine that guesses, beside one that does not.

In: the options. Out: figures, printed. Both engines have the same model and answer the same cases in turn, and their
replies have to be equal.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from .cases import Case, Measured, guessed_cases, measure
from .figures import Figure, per_round, setting, show
from .peers.on_penstock import Penstock
from .presets import model_folder

PLAIN, GUESSING = "penstock", "speculative"


async def measure_guesses(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    model, place = model_folder(options.model), (options.dtype, options.device)
    guesses = {"speculative": options.speculative, "speculative_tokens": options.speculative_tokens}
    plain, guessing = await Penstock.load(model, *place), await Penstock.load(model, *place, **guesses)
    cases = guessed_cases(options.tokens, "image" in plain.engine.info.modalities)
    try:
        measured = await measure({PLAIN: plain.run, GUESSING: guessing.run}, cases, options.rounds)
        told = guessing.engine.statistics()
    finally:
        await guessing.close()
        await plain.close()
    info = plain.engine.info
    where = setting("latency", options.model, info.dtype, info.device, options.rounds)
    note = f"{told['guesses_right']} of {told['guesses']} guesses in all cases were right"
    show(where, figures(cases, measured, note), options.json)
    return 0


def figures(cases: list[Case], measured: dict[str, Measured], note: str) -> Iterator[Figure]:
    """The time per token behind the first one, over all replies of a case, and its ratio to that without guesses."""
    for number, case in enumerate(cases):
        plain, guessing = (measured[engine][case.name] for engine in (PLAIN, GUESSING))
        same = all(one.get("ids") == other.get("ids") for one, other in zip(plain, guessing, strict=True))
        common: dict[str, Any] = {"bench": "latency", "case": case.name, "what": "time per token", "unit": "ms"}
        before, after = ([_per_token(answer) for answer in answers] for answers in (plain, guessing))
        yield Figure(engine=PLAIN, rounds=before, **common)
        own = {"ratios": per_round(after, before), "against": "without guesses"} if same else {}
        said = (note if not number else "") if same else "the replies differ"
        yield Figure(engine=GUESSING, rounds=after, note=said, **common, **own)


def _per_token(answer: dict[str, Any]) -> float | None:
    """Milliseconds from one token to the next, in the mean of each reply."""
    replies = answer.get("times", [])
    means = [(times[-1] - times[0]) / (len(times) - 1) for times in replies if len(times) > 1]
    return sum(means) / len(means) * 1000 if means else None
