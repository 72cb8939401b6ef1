"""An engine whose guesses a test chooses: right ones, wrong ones, and some of each.

What is right is found by drawing the tokens one after the other, before the step in which they are guessed. The rows
that this writes are written again by the step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from penstock.engine.guessing import guessing
from penstock.engine.guessing.chance import Chance
from penstock.engine.plan import Feed, Guesses, Plan, Result
from penstock.engine.span import Rows

from .rig import Rig


class Guesser:
    """Replaces the guesses of an engine's plans: each is right with this chance."""

    def __init__(self, rig: Rig, right: float, seed: int = 1) -> None:
        self._language, self._right, self._random = rig.core.language, right, random.Random(seed)
        self._run = rig.core.language.run
        self.right = self.guessed = 0
        vars(rig.core.language)["run"] = self.run

    def run(self, plan: Plan) -> Result:
        if all(feed.guesses is None for feed in plan.feeds):
            return self._run(plan)
        self._run(msgspec.structs.replace(plan, feeds=[]))  # pages move once
        return self._run(Plan(plan.number, [], [], [], [], [], [self._chosen(feed) for feed in plan.feeds]))

    def _chosen(self, feed: Feed) -> Feed:
        if feed.guesses is None:
            return feed
        ids, said = list[int](), 0
        for draw in (feed.draw, *feed.guesses.draws[:-1]):
            assert draw is not None
            if draw.said:
                draw = msgspec.structs.replace(draw, said=(*draw.said, *ids))
            rows = [*feed.rows]
            if ids:
                rows.append(Rows(np.array(ids), feed.guesses.positions[:, : len(ids)]))
            alone = msgspec.structs.replace(feed, rows=rows, draw=draw, guesses=None)
            [token] = self._run(Plan(0, [], [], [], [], [], [alone])).tokens
            self.guessed += 1
            if self._random.random() < self._right:
                self.right += len(ids) == said
                said += 1
                ids.append(token)
            else:
                ids.append((token + 1) % self._language.head.weight.shape[0])
        guesses = Guesses(feed.guesses.positions, feed.guesses.draws, tuple(ids))
        return msgspec.structs.replace(feed, guesses=guesses)


@contextmanager
def always(most: int = 9) -> Iterator[None]:
    """Inside, every reply has as many guesses as it may have, up to `most`, whatever they are worth."""

    def worth(chance: Chance, fitting: int, cost: float) -> int:
        return min(most, fitting)

    with (
        patch.object(Chance, "worth", worth),
        patch.object(guessing, "continued", lambda ids, count: (0,) * count),
        patch.object(guessing, "_PLAIN_EVERY", 1 << 30),
    ):
        yield


def config_of(kind: str, page_tokens: int, kv_tokens: int, host_pages: int = 1 << 16) -> dict[str, Any]:
    """`kind`: "ngram", or another word for a draft model that a test gives."""
    return {"speculative": kind, "page_tokens": page_tokens, "kv_tokens": kv_tokens, "host_pages": host_pages}
