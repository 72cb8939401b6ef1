"""What a step costs beside the model: the scheduler alone, while all of its streams speak.

In: how many streams and steps. Out: processor time of this thread, in milliseconds a step. No model runs, so each token
is the same word.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator

import msgspec

from ...engine.command import Accept, Open, Question
from ...engine.config import EngineConfig
from ...engine.loading.open import load
from ...engine.plan import Result
from ...engine.scheduling.scheduler import Scheduler, SchedulerConfig
from ...streams.requests.request import Request
from .served import greedy

_LEAD = 32  # steps that do not count: the questions go in, and everything has been done once
_ROWS = 16  # of a page


class Planning(msgspec.Struct, frozen=True):
    """Milliseconds a step.

    policy: what the streams need, and the choice among it. plan: this, and the plan with its pages. commit: the tokens
    become words and rows. publish: the events are collected.
    """

    policy: float
    plan: float
    commit: float
    publish: float

    @property
    def all(self) -> float:
        """Between two steps, on the thread of the event loop."""
        return self.plan + self.commit + self.publish


def planning(streams: int, steps: int) -> Planning:
    """Medians over so many steps of Brook's streams."""
    family = load(None, EngineConfig()).family
    pages = streams * (2 + (steps + 2 * _LEAD) // _ROWS)
    scheduler = Scheduler(family, SchedulerConfig(pages, _ROWS, streams))
    for stream in range(streams):
        scheduler.apply(Open(stream, Request(format="live")))
        scheduler.apply(Accept(stream, Question(1, "What happens?", greedy(_LEAD + steps + 1))))
    (word,) = family.text_ids(" door")
    times = list(_steps(scheduler, word, _LEAD + steps))[_LEAD:]
    return Planning(*(statistics.median(column) * 1000 for column in zip(*times, strict=True)))


def _steps(scheduler: Scheduler, word: int, count: int) -> Iterator[tuple[float, ...]]:
    """Seconds of each part of each step; the collector of garbage does not fall into one of them."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(count):
            marks = [time.thread_time()]
            scheduler.decide()
            marks.append(time.thread_time())
            plan = scheduler.plan()
            assert plan is not None
            marks.append(time.thread_time())
            result = Result(plan.number, [word] * sum(feed.draw is not None for feed in plan.feeds))
            between = time.thread_time()
            scheduler.commit(plan, result)
            marks.append(time.thread_time())
            scheduler.events()
            done = time.thread_time()
            yield marks[1] - marks[0], marks[2] - marks[1], marks[3] - between, done - marks[3]
    finally:
        gc.enable()
