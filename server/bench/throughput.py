"""`penstock bench throughput`: many requests at once, on the public `Engine` in this process.

1, 8 and 32 text requests: tokens a second while all of them decode, and the slowest first token. Then 32 requests with
a picture of 224 x 224 each: tokens a second from the start to the end, the median first token and the slowest one.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from .alone import measure_alone
from .arithmetic import decode_rate, overall_rate
from .cases import Answer, Case, Measured, throughput_cases
from .figures import Figure, per_round


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    cases = throughput_cases(options.requests, options.tokens, options.image_tokens)
    return asyncio.run(measure_alone("throughput", options, cases, figures))


def figures(cases: list[Case], measured: Measured, engine: str = "penstock") -> Iterator[Figure]:
    """The figures of one engine. Rates of text requests are compared with the rate of the fewest requests."""
    fewest: list[float | None] | None = None
    for case in cases:
        answers = measured[case.name]
        note = next((answer["error"] for answer in answers if "error" in answer), "")
        common: dict[str, Any] = {"bench": "throughput", "case": case.name, "engine": engine, "note": note}
        if case.message["media"] == "text":
            rounds = _each(answers, decode_rate)
            ratios = {} if fewest is None else {"ratios": per_round(rounds, fewest), "against": "the fewest"}
            fewest = fewest or rounds
            yield Figure(what="decode", unit="tok/s", rounds=rounds, **common, **ratios)
        else:
            yield Figure(what="all tokens", unit="tok/s", rounds=_each(answers, overall_rate), **common)
            yield Figure(what="median first token", unit="s", rounds=_each(answers, _median_first), **common)
        yield Figure(what="slowest first token", unit="s", rounds=_each(answers, _slowest_first), **common)


def _each(answers: list[Answer], of: Callable[[list[list[float]]], float]) -> list[float | None]:
    return [of(answer["times"]) if "times" in answer else None for answer in answers]


def _median_first(replies: list[list[float]]) -> float:
    return statistics.median(times[0] for times in replies)


def _slowest_first(replies: list[list[float]]) -> float:
    return max(times[0] for times in replies)
