"""A run that was noted is repeated to the same events; what a stream declares as its most is reserved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.core import make_parts
from penstock.engine.family import Loaded
from penstock.engine.scheduling.journal import Journal, replay
from penstock.errors import InputError
from penstock.streams.event import Error
from penstock.streams.requests.request import Request

from .acts import Act, Client, acts, perform, strangers
from .rig import Rig

CONFIG = {"kv_tokens": 1024, "page_tokens": 16, "backend": "reference"}


@given(
    during=acts("pair", "sound", "image", "text", "interrupt"),
    others=st.integers(0, 2),
    seed=st.none() | st.integers(0, 99),
)
def test_replayed_run_gives_the_same_events(
    omni_loaded: Loaded, during: list[Act], others: int, seed: int | None
) -> None:
    rig = Rig(omni_loaded, **CONFIG)
    journal = rig.core.scheduler.journal = Journal(rig.core.language.spans)
    client = Client(rig.open(format="live"))
    beside = strangers(rig, others, with_media=True)
    client.do("pair")
    client.do("ask", max_tokens=16, temperature=0.8, seed=seed)
    perform(rig, client, during)
    rig.run()
    told = {session.session.stream: session.session.events for session in (client, *beside)}

    again = list(replay(journal.entries, *make_parts(omni_loaded, EngineConfig(**CONFIG))))

    events = [entry for one in again for entry in one.events]
    assert {stream: [event for of, event in events if of == stream] for stream in told} == told
    assert all(one.result == one.entry for one in again if one.result is not None)


def test_reserved_tokens_are_refused_when_they_cannot_be_had(omni_loaded: Loaded) -> None:
    rig = Rig(omni_loaded, **CONFIG)
    first = rig.open(reserve_tokens=800)
    with pytest.raises(InputError, match="expected at most 224 of 1024 tokens, got 300"):
        rig.core.open(9999, Request(reserve_tokens=300))
    first.close()
    rig.open(reserve_tokens=1024)


def test_a_stream_does_not_exceed_what_it_reserved(omni_loaded: Loaded) -> None:
    rig = Rig(omni_loaded, **CONFIG)
    client = Client(rig.open(reserve_tokens=60))
    client.do("ask", max_tokens=100)
    rig.run()
    assert client.session.ends() == [("length", len(client.session.ids()))]
    assert len(client.session.transcript()[0]) <= 60
    client.do("sound", 3)
    rig.run()
    client.do("ask")
    rig.run()
    assert any("60 rows" in error.message for error in client.session.of(Error))
