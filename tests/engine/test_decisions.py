"""What a step holds is chosen from the streams that have something to do, and is what the needs of all would give."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.command import Park
from penstock.engine.conversation.state import StreamState
from penstock.engine.family import Loaded
from penstock.engine.scheduling.policy import Budget, Decision, Need, plan
from penstock.engine.scheduling.scheduler import Scheduler

from .acts import Act, Client, acts, perform, strangers
from .rig import Rig


def need_of(scheduler: Scheduler, stream: StreamState, movable: bool) -> Need:
    """Everything that the policy may ask of a stream, by a walk over all of them."""
    size, fed, table = scheduler.config.page_tokens, stream.fed, stream.table
    pieces, token, ahead = (), False, scheduler._finding.ahead(stream)
    if stream.away and stream.returns and not stream.parked and (stream.rows == fed or stream.pausing):
        pieces = ((1, False),)  # it comes back so that rows can leave
    elif not stream.parked and (stream.returns or (stream.rows > max(fed, stream.cold) and not stream.pausing)):
        pieces = tuple((len(run), run.atomic) for run in stream.waiting(scheduler.config.step_rows, ahead * size))
        token = stream.reply is not None and stream.reply.places[-1:] == [fed + ahead * size]
    copy = bool(not stream.away and fed % size and scheduler.pool.shared(table.pages[-1]))
    own = sum(table.own for table in stream.tables)
    shared = tuple(pair for table in stream.tables for pair in table.shared)
    who = (stream.id, stream.since, pieces, token, -fed % size, int(copy), stream.away, own)
    return Need(*who, movable=movable, shared=shared, ahead=ahead)


def needs_of(scheduler: Scheduler) -> list[Need]:
    found, left = [], scheduler._host.room
    for stream in scheduler.streams.values():
        pages = sum(len(table.pages) for table in stream.tables)
        found.append(need_of(scheduler, stream, stream.whole or pages <= left))
        left -= pages if not stream.whole and pages <= left else 0
    return found


@given(
    acts("image", "text", "ask", "pair"),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.booleans()), max_size=4),
    st.sampled_from([300, 420, 4000]),
    st.booleans(),
)
def test_a_step_holds_what_the_needs_of_all_give(
    omni_loaded: Loaded, todo: list[Act], parks: list[tuple[int, int, bool]], kv_tokens: int, forks: bool
) -> None:
    rig = Rig(omni_loaded, page_tokens=4, kv_tokens=kv_tokens, append_rows=24)
    scheduler, decide = rig.core.scheduler, Scheduler.decide
    seen: list[Decision] = []

    def checked(self: Scheduler) -> Decision:
        budget = Budget(self.config.step_rows, self._append_rows, self.config.page_tokens)
        self._changes.edits += self._finding.look(stream for stream in self.streams.values() if self._feeds(stream))
        wanted = plan(needs_of(self), self.pool.free, budget)
        assert decide(self) == wanted
        seen.append(wanted)
        return wanted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "decide", checked)
        strangers(rig, 3, 8)
        client = Client(rig.open(format="live"))
        perform(rig, client, todo)
        if forks and not client.session.story.waiting:
            rig.fork(client.session)
        for steps, place, parked in parks:
            rig.step(steps)
            scheduler.apply(Park(list(scheduler.streams)[place], parked))
        for stream in scheduler.streams:
            scheduler.apply(Park(stream, False))
        rig.run()
    assert sum(bool(decision.grants) for decision in seen) >= 3


def test_streams_with_nothing_to_do_are_not_looked_at(omni_loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(omni_loaded, page_tokens=4, kv_tokens=4000)
    idle = [Client(rig.open(format="turns")) for _ in range(20)]
    for client in idle:
        client.do("text")
        client.do("ask", max_tokens=1, ignore_eos=True)
    rig.run()
    speaking = Client(rig.open(format="turns"))
    speaking.do("ask", max_tokens=9, ignore_eos=True)
    looked: list[int] = []
    own_need: Any = Scheduler._own_need

    def counted(self: Scheduler, stream: StreamState) -> Need:
        looked.append(stream.id)
        return own_need(self, stream)

    monkeypatch.setattr(Scheduler, "_own_need", counted)
    steps = len(rig.plans)
    rig.run()
    assert len(rig.plans) - steps >= 9
    assert set(looked) == {speaking.session.stream}
