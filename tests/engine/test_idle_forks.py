"""Pages that idle forks share can be taken from all of them together."""

from __future__ import annotations

import pytest
from penstock.engine.command import Accept, Fork, Open, TextInput
from penstock.engine.family import Loaded
from penstock.engine.plan import Result
from penstock.engine.scheduling.policy import Budget, Need, plan
from penstock.engine.scheduling.scheduler import Scheduler, SchedulerConfig
from penstock.streams.requests.request import Request

WORDS = "door " * 20


def drive(scheduler: Scheduler) -> None:
    """Step until nothing is left to do; every draw gives the same token."""
    for _ in range(100):
        step = scheduler.plan()
        if step is None:
            return
        scheduler.commit(step, Result(step.number, [300] * sum(feed.draw is not None for feed in step.feeds)))
        scheduler.check()
    raise AssertionError("not done after 100 steps")


def test_a_stream_is_served_beside_idle_forks(text_loaded: Loaded) -> None:
    scheduler = Scheduler(text_loaded.family, SchedulerConfig(pages=14, page_tokens=4))
    scheduler.apply(Open(1, Request(format="turns")))
    scheduler.apply(Accept(1, TextInput(1, WORDS)))
    drive(scheduler)
    scheduler.apply(Fork(1, 2, 99))
    scheduler.apply(Fork(1, 3, 99))
    scheduler.apply(Open(4, Request(format="turns")))
    scheduler.apply(Accept(4, TextInput(1, WORDS)))
    drive(scheduler)
    assert scheduler.streams[4].fed == scheduler.streams[4].rows
    for fork in (1, 2, 3):
        scheduler.apply(Accept(fork, TextInput(200, "hill")))
    drive(scheduler)
    assert all(stream.fed == stream.rows for stream in scheduler.streams.values())


@pytest.mark.parametrize("host_pages", [0, 16])
def test_forks_that_share_the_whole_cache_are_served(text_loaded: Loaded, host_pages: int) -> None:
    """No page is left for a copy of the one that all three would write into: they take turns."""
    scheduler = Scheduler(text_loaded.family, SchedulerConfig(pages=1, page_tokens=128, host_pages=host_pages))
    scheduler.apply(Open(1, Request(format="turns")))
    scheduler.apply(Accept(1, TextInput(1, WORDS)))
    drive(scheduler)
    scheduler.apply(Fork(1, 2, 99))
    scheduler.apply(Fork(2, 3, 99))
    for seq in (200, 201):
        for fork in (1, 2, 3):
            scheduler.apply(Accept(fork, TextInput(seq, "hill")))
        drive(scheduler)
    assert all(stream.past == stream.rows for stream in scheduler.streams.values())


def test_a_shared_page_is_free_when_all_its_holders_are_moved() -> None:
    budget = Budget(rows=8, append_rows=8, page_tokens=4)
    shared = ((0, 2), (1, 2))
    forks = [Need(1, 1, shared=shared), Need(2, 2, own=1, shared=shared)]
    new = Need(3, 3, pieces=((8, False),))
    assert plan([*forks, new], 1, budget).moved == [1, 2]
    assert plan([*forks, new], 2, budget).moved == []
    other_holder = [Need(1, 1, shared=((0, 3), (1, 3))), Need(2, 2, own=1, shared=((0, 3), (1, 3)))]
    decision = plan([*other_holder, new], 1, budget)
    assert decision.grants == [(3, 8)] and decision.moved == [
        1,
        2,
    ]  # the one page of its own is enough with the free one
