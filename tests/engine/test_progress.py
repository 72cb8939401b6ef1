"""Every stream is served, whatever the pages; what is taken from a stream comes back, and nothing is encoded twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.command import Due, Park
from penstock.engine.family import Loaded
from penstock.streams.event import Error

from .acts import Client
from .rig import Rig, Session

pytestmark = pytest.mark.timeout(3600)  # many examples

REPLY = 12


@contextmanager
def encoded(rig: Rig, patch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int, int]]]:
    """The (stream, input, index) of each segment that goes through a tower."""
    segments: list[tuple[int, int, int]] = []
    towers = rig.core.loaded.towers
    encode = towers.encode

    def counted(batch: list[Any]) -> list[Any]:
        segments.extend((stream, segment.seq, segment.index) for stream, segment in batch)
        return encode(batch)

    with patch.context() as inside:
        inside.setattr(towers, "encode", counted)
        yield segments


@given(
    page_tokens=st.sampled_from([4, 16, 64]),
    pages_over=st.integers(0, 3),
    words=st.lists(st.integers(1, 60), min_size=2, max_size=7),
    host_pages=st.sampled_from([0, 4, 1 << 16]),
    append_rows=st.sampled_from([3, 256]),
    parked=st.booleans(),
    due=st.lists(st.integers(0, 6), unique=True),
)
def test_every_stream_is_served(
    text_qwen: tuple[Any, Any],
    text_loaded: Loaded,
    page_tokens: int,
    pages_over: int,
    words: list[int],
    host_pages: int,
    append_rows: int,
    parked: bool,
    due: list[int],
) -> None:
    """More streams than pages: the cache holds hardly more than the largest of them. Some are due all
    the time. `Rig.step` checks the pages."""
    longest = len(text_loaded.family.text_ids("door" * max(words))) + 2 * REPLY + 60
    pages = -(-longest // page_tokens) + pages_over
    rig = Rig(
        text_loaded,
        page_tokens=page_tokens,
        kv_tokens=pages * page_tokens,
        host_pages=host_pages,
        append_rows=append_rows,
    )
    sessions = [rig.open(format="turns", system="You watch a door.") for _ in words]
    rig.core.scheduler.apply(Due([sessions[place].stream for place in due if place < len(words)]))
    for session, count in zip(sessions, words, strict=True):
        session.text("door" * count)
        session.ask("What?", max_tokens=REPLY)
    if parked:
        rig.step(3)
        rig.core.scheduler.apply(Park(sessions[0].stream, True))
        rig.run()
        assert all(session.ends() for session in sessions[1:]), "a client that does not read holds up nobody"
        rig.core.scheduler.apply(Park(sessions[0].stream, False))
    rig.run()
    for session in sessions:
        session.ask("Who?", max_tokens=REPLY)
    rig.run()
    for session in sessions:
        assert not session.of(Error)
        assert session.ends() == [("length", REPLY)] * 2
        assert session.check(*text_qwen) == 2 * REPLY
    for session in sessions:
        session.close()
    rig.core.scheduler.check()
    assert rig.core.scheduler.pool.free == pages


def talk(client: Client) -> Session:
    client.do("pair")
    client.do("sound", 3)
    client.do("image")
    client.do("ask", max_tokens=REPLY)
    return client.session


@pytest.mark.parametrize("host_pages", [0, 1 << 16], ids=["fed again", "from the host"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_preempted_in_mid_reply(
    omni: tuple[Any, Any], omni_loaded: Loaded, monkeypatch: pytest.MonkeyPatch, host_pages: int, backend: str
) -> None:
    """An older stream grows and takes the pages of a younger one, which goes on later with equal tokens and media."""
    alone = talk(Client(Rig(omni_loaded, backend=backend).open(format="live")))
    alone.rig.run()

    rig = Rig(omni_loaded, page_tokens=4, kv_tokens=144, host_pages=host_pages, backend=backend)
    with encoded(rig, monkeypatch) as segments:
        older = rig.open(format="turns")
        older.text("door " * 36)
        older.ask("What?", max_tokens=50)
        young = Client(rig.open(format="live"))
        session = talk(young)
        taken = 0
        for _ in range(500):
            table = rig.core.scheduler.streams[session.stream].table
            held = len(table.pages)
            if not rig.step():
                break
            taken += held > 0 and not table.pages and session.story.replying and len(session.ids()) > 2
    assert taken, "its pages are taken while it speaks"
    assert older.ends() == [("length", 50)]
    assert session.ids() == alone.ids()
    assert len(segments) == len(set(segments)) == 3, "a pair, a short block of sound, a picture"
    saved = [save for plan in rig.plans for save in plan.saves]
    assert bool(saved) == (host_pages > 0)
    for one in (older, session):
        assert one.check(*omni) == len(one.ids())
    again = [event.row for event in session.of(Error)]
    assert not again


def test_idle_streams_give_way_first(text_qwen: tuple[Any, Any], text_loaded: Loaded) -> None:
    """An idle stream's pages go before those of a younger one that speaks; it is fed again only with a reason."""
    rig = Rig(text_loaded, page_tokens=4, kv_tokens=160, host_pages=0, prefix_cache=False)
    idle, speaking, grows = (rig.open(format="turns") for _ in range(3))
    idle.text("door" * 20)
    idle.ask("What?", max_tokens=4)
    rig.run()
    grows.ask("What?", max_tokens=60)
    speaking.ask("Who?", max_tokens=30)
    rig.run()
    fed = [feed.stream for plan in rig.plans for feed in plan.feeds if feed.first == 0]
    assert fed.count(idle.stream) == fed.count(speaking.stream) == fed.count(grows.stream) == 1
    assert not rig.core.scheduler.streams[idle.stream].table.pages
    idle.ask("And?", max_tokens=4)
    rig.run()
    for session in (idle, speaking, grows):
        session.check(*text_qwen)
    assert idle.ends() == [("length", 4)] * 2


@pytest.mark.parametrize("span_bytes", [0, 4_000])
def test_spans_that_are_let_go_are_never_fed_anew(omni: tuple[Any, Any], omni_loaded: Loaded, span_bytes: int) -> None:
    """Where embeddings are not kept, host memory is for the streams that need it, and the others are fed again."""
    rig = Rig(omni_loaded, page_tokens=4, kv_tokens=256, host_pages=48, span_bytes=span_bytes)
    clients = [Client(rig.open(format="live"), offset=4 * number) for number in range(6)]
    for number, client in enumerate(clients):
        if number % 2:
            client.do("image", number)
        else:
            client.session.text("door " * 10)
        client.do("ask", max_tokens=REPLY)
    rig.run()
    for client in clients:
        client.do("ask", 1, max_tokens=REPLY)
    rig.run()
    for client in clients:
        assert client.session.check(*omni) == 2 * REPLY
    assert rig.core.scheduler.statistics()["span_bytes"] <= max(span_bytes, 0)
