"""The draft model: a smaller decoder that guesses the tokens of another one, over the same page tables.

In: a plan whose feeds want guesses. Out: its feeds with the guessed ids. The draft model has a cache of its own, in
which the row of a token lies where it lies in the other cache. It reads words: where media stands it sees the ids that
stand for it. What it guesses changes nothing but the number of steps, so its rows need not be right: those of a stream
that comes back from host memory are computed again (`Guesses.unread`), and of windows that slid it knows nothing.

It draws as the other one does, with the same seed for the same token: so two models that agree draw the same.
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from ..family import Loaded
from ..plan import Draw, Feed, Guesses, Plan
from ..span import Rows
from .guesses import knowing
from .language import LanguageModel


class Drafter:
    """Guesses for one language model."""

    def __init__(self, loaded: Loaded, language: LanguageModel) -> None:
        cache = language.cache
        self._model = LanguageModel(loaded, len(cache.keys[0]), cache.page_tokens, slots=1, backend=language.backend)
        self._model.cache.tables = cache.tables
        self._own = self._model.embed.weight.shape[0]
        self._others = language.embed.weight.shape[0]

    def guess(self, plan: Plan) -> list[Feed]:
        """The feeds of a plan, those that want guesses with as many as were found. Pages are copied first, as in the
        other cache."""
        wanted = {feed.stream: feed.guesses for feed in plan.feeds if feed.guesses is not None and not feed.guesses.ids}
        found: dict[int, list[int]] = {stream: [] for stream in wanted}
        feeds = [self._reading(feed, feed.guesses) for feed in plan.feeds if feed.stream in wanted and feed.guesses]
        copies = plan.copies
        while feeds or copies:
            result = self._model.run(Plan(plan.number, [], copies, [], [], [], feeds))
            drawing = [feed for feed in feeds if feed.draw and feed.stream not in (*result.failed, *result.poisoned)]
            feeds, copies = [], []
            for feed, [(id, _)] in zip(drawing, result.drawn(), strict=True):
                guesses, ids = wanted[feed.stream], found[feed.stream]
                if id < self._others:
                    ids.append(id)
                    if len(ids) < len(guesses.draws):
                        feeds.append(self._next(feed, guesses, ids))
        return [_with(feed, found[feed.stream]) if feed.stream in wanted else feed for feed in plan.feeds]

    def _reading(self, feed: Feed, guesses: Guesses) -> Feed:
        """What it has not read, and, where it is to guess, the rows of the feed behind it, drawn as there."""
        rows = [*guesses.unread, *feed.rows] if guesses.draws else guesses.unread
        read = [Rows(np.where(run.ids < self._own, run.ids, 0), run.positions) for run in rows]
        assert feed.draw is not None
        draw = self._as_own(feed.draw) if guesses.draws else None
        return Feed(feed.stream, feed.slot, guesses.first, read, draw)

    def _next(self, feed: Feed, guesses: Guesses, ids: list[int]) -> Feed:
        """The newest guess, to draw the one behind it."""
        place = len(ids) - 1
        rows = [Rows(np.array(ids[-1:]), guesses.positions[:, place : place + 1])]
        draw = self._as_own(knowing(guesses.draws[place], tuple(ids)))
        return Feed(feed.stream, feed.slot, feed.first + sum(len(run) for run in feed.rows), rows, draw)

    def _as_own(self, draw: Draw) -> Draw:
        """The same draw, without ids that this model does not have."""
        return replace(
            draw,
            said=tuple(id for id in draw.said if id < self._own),
            bias=tuple((id, more) for id, more in draw.bias if id < self._own),
            barred=tuple(id for id in draw.barred if id < self._own),
            logprobs=None,
        )


def _with(feed: Feed, ids: list[int]) -> Feed:
    assert feed.guesses is not None
    return replace(feed, guesses=replace(feed.guesses, ids=tuple(ids)))


def attach(loaded: Loaded, language: LanguageModel) -> None:
    """The tokens of this language model are guessed by this draft model from now on."""
    language.guess = Drafter(loaded, language).guess
