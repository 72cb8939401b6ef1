"""Rows of media that is due go into a step before older ones, and nobody starves for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.command import Due
from penstock.engine.config import EngineConfig
from penstock.engine.core import make_parts
from penstock.engine.family import Loaded
from penstock.engine.plan import Plan, Result
from penstock.engine.scheduling.journal import Journal, replay
from penstock.engine.scheduling.policy import Budget, Need, within
from penstock.engine.scheduling.precedence import PATIENCE, Precedence

from .acts import Client
from .rig import Rig

Streams = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=2, max_size=8)


@given(Streams, st.permutations(range(8)), st.integers(1, 40))
def test_the_earliest_deadline_goes_first_and_the_oldest_of_the_others_is_never_far(
    streams: list[tuple[int, bool, bool]], order: list[int], rows: int
) -> None:
    """Streams of which each has more rows than a step, in every step: there is never enough for two."""
    clocked = [stream for stream in order if stream < len(streams) and streams[stream][1]]
    needs = [
        Need(stream, since, (((1, False),) if token else ()) + ((40, False),), token)
        for stream, (since, _, token) in enumerate(streams)
    ]
    precedence = Precedence()
    precedence.due = clocked
    others = [need for need in needs if need.stream not in clocked]
    appended: list[int] = []
    for _ in range(3 * (PATIENCE + 1)):
        decision = within(needs, 1_000, Budget(rows, rows, 16), precedence.first(needs))
        assert decision is not None
        precedence.took(decision)
        grants = dict(decision.grants)
        assert all(grants.get(need.stream) for need in needs if need.token), "a token is always fed"
        (only,) = [need.stream for need in needs if grants.get(need.stream, 0) > need.token]
        assert grants[only] == rows + needs[only].token
        appended.append(only)
    oldest = [min(others, key=lambda need: (need.since, need.stream)).stream] if others else clocked[:1]
    turn = [*(clocked[:1] or oldest) * PATIENCE, *oldest]
    assert appended == turn * 3


def shape(plan: Plan) -> list[tuple[int, int, int]]:
    """Which rows of which streams it feeds."""
    return [(feed.stream, feed.first, sum(map(len, feed.rows))) for feed in plan.feeds]


def noted(plans: list[Plan], run: Callable[[Plan], Result], plan: Plan) -> Result:
    plans.append(plan)
    return run(plan)


def test_a_frame_passes_a_long_prompt_and_a_record_repeats_it(
    omni_loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"page_tokens": 16, "append_rows": 32, "step_rows": 32, "backend": "cpu", "kv_tokens": 4096}
    steps = []
    for is_due in (False, True):
        rig = Rig(omni_loaded, **config)
        scheduler = rig.core.scheduler
        scheduler.journal = journal = Journal(rig.core.language.spans)
        prompt, camera = rig.open(format="turns"), Client(rig.open(format="live"))
        camera.do("image")
        rig.run()
        prompt.text("door " * 300)
        prompt.ask("What?", max_tokens=4)
        camera.do("image")
        scheduler.apply(Due([camera.session.stream] if is_due else []))
        before = len(rig.plans)
        rig.run()
        fed = [{feed.stream for feed in plan.feeds} for plan in rig.plans[before:]]
        steps.append(next(at for at, streams in enumerate(fed) if camera.session.stream in streams))
        assert len(prompt.ids()) == 4
        scheduler.check()
        again = make_parts(omni_loaded, EngineConfig(**config))
        plans: list[Plan] = []
        monkeypatch.setattr(again[1], "run", partial(noted, plans, again[1].run))
        assert all(one.result == one.entry for one in replay(journal.entries, *again) if one.result)
        assert [shape(plan) for plan in plans] == [shape(plan) for plan in rig.plans]
    assert steps[1] == 0 < steps[0]
