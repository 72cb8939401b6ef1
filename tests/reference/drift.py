"""How far pinned rows drift in bf16 when the window has slid 1, 10, 100 and 1,000 times, by three ways to lift them.

`python tests/reference/drift.py` prints the table in Markdown. Plain torch: random queries, keys and values of one
layer, no model. The truth is float64 all the way. What is stored is bf16: queries, keys, values. Angles are float64,
cosine and sine float32, products are summed in float32. The ways:

    rounded once    nothing slides: a cache whose keys were computed where they stand now. What bf16 costs by itself
    in place        at each slide the keys are turned by its shift and written back
    lifted          at each pass the keys as first computed are turned by the whole shift, then rounded
    query turned    the keys stay as first computed; for their part of the attention the query is turned back by the
                    whole shift and rounded, and the two parts are merged by log-sum-exp
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

HEADS, SIZE, BASE = 8, 128, 1e6
PINNED, WINDOW, QUERIES = 128, 512, 64
SLIDES = (1, 10, 100, 1000)
WAYS = ("rounded once", "in place", "lifted", "query turned")


@dataclass(frozen=True)
class Errors:
    """Root mean squares of what differs from float64. Those of `keys` (the pinned ones) and `output` are in parts of
    the exact ones' own. `scores` are those of pinned keys before the softmax; their own root mean square is 2."""

    keys: float
    scores: float
    output: float


def rotate(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """R(places) of x `(heads, n, size)`, in x's precision; one place for all rows, or one for each."""
    half = SIZE // 2
    frequencies = BASE ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = places.double().reshape(-1, 1) * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([x[..., :half] * cos - x[..., half:] * sin, x[..., half:] * cos + x[..., :half] * sin], -1)


def stored(x: torch.Tensor) -> torch.Tensor:
    """x as bf16 holds it, in float32."""
    return x.bfloat16().float()


def scores_of(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return query @ keys.mT / SIZE**0.5


def merged(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The attention's output from the scores and values of each part, merged by log-sum-exp."""
    sums = torch.stack([scores.logsumexp(-1) for scores, _ in parts])
    outputs = torch.stack([scores.softmax(-1) @ values for scores, values in parts])
    return (sums.softmax(0)[..., None] * outputs).sum(0)


def measure(slides: int) -> dict[str, Errors]:
    """The errors of each way behind so many slides, of 512 to 1,535 positions each."""
    random = torch.Generator().manual_seed(slides)
    shifts = torch.randint(512, 1536, (slides,), generator=random)
    lift = shifts.sum()
    draw = {"generator": random, "dtype": torch.float64}
    keys, values = torch.randn(2, HEADS, PINNED + WINDOW, SIZE, **draw)
    places = torch.arange(PINNED + WINDOW) + lift  # where rows stand now: the clock has gone on by the lift
    asks = 2 * torch.randn(HEADS, QUERIES, SIZE, **draw)
    query = rotate(asks, places[-1] + 1 + torch.arange(QUERIES))

    exact = rotate(keys, places)
    exact_scores = scores_of(query, exact)
    exact_output = exact_scores.softmax(-1) @ values

    first = stored(rotate(keys[:, :PINNED], places[:PINNED] - lift))
    rounded, asked, kept_values = stored(exact), stored(query), stored(values)
    in_place = first
    for shift in shifts:
        in_place = stored(rotate(in_place, shift))
    turned = stored(rotate(asked, -lift))
    ways = {
        "rounded once": (asked, rounded[:, :PINNED]),
        "in place": (asked, in_place),
        "lifted": (asked, stored(rotate(first, lift))),
        "query turned": (turned, first),
    }
    window = (scores_of(asked, rounded[:, PINNED:]), kept_values[:, PINNED:])
    errors = {}
    for name, (asker, pinned) in ways.items():
        scores = scores_of(asker, pinned)
        output = merged([(scores, kept_values[:, :PINNED]), window])
        stand = rotate(pinned.double(), lift) if name == "query turned" else pinned  # as the query sees them
        errors[name] = Errors(
            _rms(stand - exact[:, :PINNED]) / _rms(exact[:, :PINNED]),
            _rms(scores - exact_scores[..., :PINNED]),
            _rms(output - exact_output) / _rms(exact_output),
        )
    return errors


def _rms(x: torch.Tensor) -> float:
    return float(x.double().pow(2).mean().sqrt())


def table() -> str:
    """The table of all ways, in Markdown."""
    lines = ["| slides | way | keys | scores | output |", "|---:|---|---:|---:|---:|"]
    for slides in SLIDES:
        for name, error in measure(slides).items():
            lines.append(f"| {slides:,} | {name} | {error.keys:.2%} | {error.scores:.4f} | {error.output:.2%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
