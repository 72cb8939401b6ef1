"""Guessed tokens in a step: their rows and draws, and which of them were right. Plain data; the forward pass is the
caller's.

A guess is right where it is the token that is drawn there. How a token is drawn depends on its logits and its own seed
alone, so what is said is what would be said without guesses, drawn or not: no draw is given up or made twice
(drafter-invariant sampling, arXiv 2408.07978).
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from ..plan import Draw, Feed, Guesses, Likely, Result
from ..span import Rows


def laid_behind(feed: Feed) -> Feed:
    """The feed with its guesses, whose ids are known, as rows behind its own."""
    guesses = feed.guesses
    if guesses is None or not guesses.ids:
        return replace(feed, guesses=None) if guesses is not None else feed
    behind = Rows(np.array(guesses.ids, dtype=np.int64), guesses.positions[:, : len(guesses.ids)])
    draws = [knowing(draw, guesses.ids[: place + 1]) for place, draw in enumerate(guesses.draws[: len(guesses.ids)])]
    return replace(feed, rows=[*feed.rows, behind], guesses=Guesses(behind.positions, draws, guesses.ids))


def drawn_rows(feeds: list[Feed]) -> tuple[list[int], list[Draw]]:
    """The rows of a step that are drawn from, and how: of each feed that draws, its last row and those of guesses."""
    rows: list[int] = []
    draws: list[Draw] = []
    end = 0
    for feed in feeds:
        end += sum(len(run) for run in feed.rows)
        if feed.draw is not None:
            draws += [feed.draw, *(feed.guesses.draws if feed.guesses is not None else [])]
            rows += range(end - 1 - len(_ids(feed)), end)
    return rows, draws


def result(number: int, feeds: list[Feed], tokens: list[int], likely: list[Likely | None], failed: list[int]) -> Result:
    """What a step gave, of each feed up to its first wrong guess, without the feeds of which a draw (token -1) had
    logits that were not finite."""
    told: list[int] = []
    how: list[Likely | None] = []
    counts, poisoned, first = list[int](), list[int](), 0
    for feed in feeds:
        if feed.draw is None:
            continue
        ids = _ids(feed)
        count = 1 + next((place for place, id in enumerate(ids) if tokens[first + place] != id), len(ids))
        if -1 in tokens[first : first + count]:
            poisoned.append(feed.stream)
        else:
            told += tokens[first : first + count]
            how += likely[first : first + count]
            counts.append(count)
        first += 1 + len(ids)
    return Result(number, told, failed, poisoned, how, counts=counts if max(counts, default=1) > 1 else [])


def _ids(feed: Feed) -> tuple[int, ...]:
    return () if feed.guesses is None else feed.guesses.ids


def knowing(draw: Draw, guesses: tuple[int, ...]) -> Draw:
    """The draw behind these guesses: what penalties count holds them too."""
    return replace(draw, said=draw.said + guesses) if draw.said else draw
