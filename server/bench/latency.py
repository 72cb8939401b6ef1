"""`penstock bench latency`: how long one user waits, on the public `Engine` in this process.

First token of a text, an image of 448 x 448 and a video of 16 frames of 224 x 224, and the time between tokens. Then a
stream with 5, 20 and 60 pictures: how long it takes in another one, and how long from a question, which comes with one
more picture, to its first token. All cases run once per round, in turn; the first round is not counted.

With `--speculative` instead: how long a token takes with guesses and without, in two engines, one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from typing import Any

from .alone import measure_alone
from .arithmetic import gaps, percentile
from .cases import Case, Measured, latency_cases
from .figures import Figure, per_round
from .guesses import measure_guesses

TOKENS = 64


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    if options.speculative is not None:
        return asyncio.run(measure_guesses(options))
    cases = latency_cases(options.frames, options.tokens)
    return asyncio.run(measure_alone("latency", options, cases, figures))


def figures(cases: list[Case], measured: Measured, engine: str = "penstock") -> Iterator[Figure]:
    """The figures of one engine. Those of sessions are compared with the session of the fewest pictures."""
    shortest: dict[str, list[float | None]] = {}
    for case in cases:
        answers = measured[case.name]
        common: dict[str, Any] = {"bench": "latency", "case": case.name, "engine": engine, "note": _failed(answers)}
        if case.is_session:
            for what, key in (("question to first token", "question"), ("taking in a picture", "frame")):
                rounds = [answer.get(key) for answer in answers]
                first = shortest.setdefault(what, rounds)
                ratios = {} if first is rounds else {"ratios": per_round(rounds, first), "against": "the shortest"}
                yield Figure(what=what, unit="s", rounds=rounds, **common, **ratios)
            continue
        first_tokens = [answer["times"][0][0] if "times" in answer else None for answer in answers]
        yield Figure(what="first token", unit="s", rounds=first_tokens, **common)
        between = [percentile(gaps(answer["times"][0]), 50) * 1000 if "times" in answer else None for answer in answers]
        yield Figure(what="between tokens", unit="ms", rounds=between, **common)


def _failed(answers: list[dict[str, Any]]) -> str:
    return next((answer["error"] for answer in answers if "error" in answer), "")
