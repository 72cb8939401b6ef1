"""Streams that slide: what they say is what a dense reference says of the rows that are left, and what they keep is
bounded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.engine.command import Interrupt
from penstock.engine.conversation.fronts import Fronts
from penstock.engine.conversation.state import StreamState
from penstock.engine.family import Loaded
from penstock.engine.pages import PageTable
from penstock.engine.positions import Cursor
from penstock.engine.runner.angles import Turning
from penstock.errors import InputError
from penstock.streams.event import Error, Evicted, ReplyDone, Token
from penstock.streams.requests.window import Window

from tests.fixtures.loaded import plain, served

from .acts import Act, Client, acts, perform
from .rig import Session
from .slid import SlidRig

FAMILIES = ["omni", "qwen2_5_vl", "qwen3_vl", "llava", "gemma3", "text"]
SMALL = Window(rows=220, text_rows=40)


def rig_of(name: str, **config: Any) -> SlidRig:
    return SlidRig(served(name), plain(name)[0], **{"page_tokens": 16, "kv_tokens": 2048, **config})


def media(name: str) -> str:
    return "text" if name == "text" else "image" if name in ("llava", "gemma3") else "pair"


def live_on(rig: SlidRig, session: Session, kind: str, turns: int) -> None:
    """Media, questions and answers."""
    client = Client(session)
    for turn in range(turns):
        for piece in range(3):
            client.do(kind, turn + piece)
            rig.step(1)
        client.do("ask", turn, max_tokens=4, hold=False)
        rig.run()


@pytest.mark.parametrize("name", FAMILIES)
def test_it_goes_on_as_the_dense_reference_does(name: str) -> None:
    rig = rig_of(name)
    session = rig.open(format="turns", window=SMALL, system="You watch a door.")
    live_on(rig, session, media(name), 14)
    stream = rig.core.scheduler.streams[session.stream]
    assert len(session.of(Evicted)) >= 3 and not session.of(Error)
    assert stream.size <= 220 and stream.rows > 2 * 220
    assert rig.compared >= 14 * 4


@pytest.mark.parametrize("page_tokens", [32, 8])
def test_who_has_the_cache_for_itself_goes_on_in_it(page_tokens: int) -> None:
    """Without a number of rows the window is the cache. It begins and ends inside of pages, so some rows stay empty."""
    rig = rig_of("omni", kv_tokens=384, page_tokens=page_tokens)
    session = rig.open(format="turns", window=Window())
    client = Client(session)
    for turn in range(50):
        client.do("image", turn)
    client.do("ask", 0, max_tokens=40, hold=False)
    rig.run()
    assert session.of(Evicted) and [done.tokens for done in session.of(ReplyDone)] == [40]


@settings(max_examples=4)
@given(todo=acts("pair", "image", "text", "ask", "interrupt", most=8), fork=st.integers(0, 8), data=st.data())
def test_slides_at_random_places(todo: list[Act], fork: int, data: st.DataObject) -> None:
    """In mid-reply, beside interrupts, copies and streams that take each other's pages."""
    rig = rig_of("omni", kv_tokens=data.draw(st.sampled_from([640, 2048])), page_tokens=4)
    window = Window(rows=data.draw(st.integers(120, 200)), text_rows=data.draw(st.sampled_from([0, 12, 40])))
    format = data.draw(st.sampled_from(["live", "turns", "interrupt"]))
    first, other = (Client(rig.open(format=format, window=window)) for _ in range(2))
    for client in (first, other):
        live_on(rig, client.session, "pair", 3)
    perform(rig, first, todo[:fork])
    rig.run()
    twin = Client(rig.fork(first.session), first.shown)
    perform(rig, twin, todo[fork:])
    perform(rig, first, todo)
    perform(rig, other, todo)
    for client in (first, other, twin):
        client.do("ask", max_tokens=3, hold=False)
        rig.run()
        assert rig.core.scheduler.streams[client.session.stream].size <= 300
        client.session.close()
    rig.run()
    assert rig.core.scheduler.pool.free == rig.core.scheduler.pool.pages


@settings(max_examples=4)
@given(steps=st.lists(st.integers(0, 2), min_size=1, max_size=7))
def test_what_leaves_does_not_depend_on_the_speed_of_the_machine(steps: list[int]) -> None:
    """`steps`: how many follow each piece, in turn."""

    def lived(steps: list[int]) -> list[Any]:
        rig = rig_of("omni")
        session = rig.open(format="turns", window=Window(rows=130, text_rows=12))
        client = Client(session)
        for piece in range(18):
            client.do("pair", piece)
            if piece % 6 == 5:
                client.do("ask", piece, max_tokens=4, hold=False)
            rig.step(steps[piece % len(steps)])
        rig.run()
        return [(event.row, event.rows, event.recalled) for event in session.of(Evicted)] + [session.ids()]

    assert lived(steps) == lived([40])


def with_positions(name: str, most: int) -> Loaded:
    """The model, as if it had so many positions."""
    loaded = served(name)
    family = copy.copy(loaded.family)
    family.max_positions = most
    return loaded._replace(family=family)


def test_a_thousand_slides() -> None:
    """They take a stream beyond the positions that the model has."""
    rig = SlidRig(with_positions("qwen2_5_vl", 512), plain("qwen2_5_vl")[0], page_tokens=16, kv_tokens=512)
    session = rig.open(format="turns", window=Window(rows=64, text_rows=8))
    client = Client(session)
    while len(session.of(Evicted)) < 1000:
        client.do("image", client.shown)
        client.shown += 1
        rig.run()
    client.do("ask", max_tokens=8, hold=False)
    rig.run()
    assert rig.compared == 8 and rig.core.scheduler.streams[session.stream].layout.cursor.text_next > 2048


@pytest.mark.parametrize("name", ["omni", "gemma3"])
def test_positions_that_no_model_has(name: str) -> None:
    """As after months: float32 angles would be off by parts of a turn."""
    rig = SlidRig(with_positions(name, 1 << 30), plain(name)[0], page_tokens=16, kv_tokens=2048)
    session = rig.open(format="turns", window=SMALL)
    stream = rig.core.scheduler.streams[session.stream]
    stream.layout.cursor = Cursor(300_000_000, 300_000_000)
    live_on(rig, session, media(name), 6)
    assert session.of(Evicted) and rig.compared == 24


def lift_off_by_one(patch: pytest.MonkeyPatch) -> None:
    lifts = Fronts._lifts
    patch.setattr(Fronts, "_lifts", lambda self: [(front, lift + 1) for front, lift in lifts(self)])


def lifted_twice(patch: pytest.MonkeyPatch) -> None:
    turning = Turning.__call__
    patch.setattr(Turning, "__call__", lambda self, steps: turning(self, 2 * steps))


def begin_ignored(patch: pytest.MonkeyPatch) -> None:
    def feed(state: StreamState, count: int) -> Any:
        fed, copies = of_state(state, count)
        return msgspec.structs.replace(fed, begin=0), copies

    of_state = StreamState.feed
    patch.setattr(StreamState, "feed", feed)


def page_freed_too_early(patch: pytest.MonkeyPatch) -> None:
    def slide(table: PageTable, begin: int) -> Any:
        edit = of_table(table, begin)
        if len(table.pages) > 1:  # its second page is another one from now on
            table.pool.release([table.pages[1]])
            table.pages[1] = table.pool.take(1)[0]
        return edit

    of_table = PageTable.slide
    patch.setattr(PageTable, "slide", slide)


@pytest.mark.parametrize("break_it", [lift_off_by_one, lifted_twice, begin_ignored, page_freed_too_early])
def test_what_is_wrong_turns_it_red(break_it: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    rig = rig_of("qwen2_5_vl")
    session = rig.open(format="turns", window=SMALL)
    with pytest.raises(AssertionError, match="logits differ by"):
        live_on(rig, session, "image", 14)


def test_a_slide_counts_on_from_what_the_client_knows() -> None:
    """The event comes before the first token that sees less, names media times, and what goes is whole."""
    rig = rig_of("omni")
    session = rig.open(format="turns", window=Window(rows=2000, video_seconds=8.0))
    live_on(rig, session, "pair", 8)
    gone = session.of(Evicted)
    assert gone and not session.of(Error)
    ends = [event.stop_us for event in gone if event.stop_us is not None]
    assert ends == sorted(ends)
    rows = rig.core.scheduler.transcript(session.stream)
    seen = [run.seen.stop_us for run in rows if run.seen is not None and run.seen.stop_us is not None]
    assert min(seen) > ends[-1] and max(seen) - min(seen) <= 8e6
    assert [run.row for run in rows] == sorted(run.row for run in rows)


def test_a_reply_says_from_when_on_all_media_was_there() -> None:
    """So nobody takes what it says of the past for more than it saw. A copy knows it too."""
    rig = rig_of("omni")
    session = rig.open(format="turns", window=SMALL)
    live_on(rig, session, "pair", 8)
    left, told = None, []
    for event in session.events:
        if isinstance(event, Evicted):
            left = event.stop_us if left is None or event.stop_us is None else max(left, event.stop_us)
        elif isinstance(event, ReplyDone):
            assert event.since_us == left
            told.append(event.since_us)
    held = [run.seen.start_us or 0 for run in rig.core.scheduler.transcript(session.stream) if run.seen is not None]
    assert told[0] is None and None not in told[-2:] and told[-2] < told[-1] <= min(held)
    twin = rig.fork(session)
    Client(twin).do("ask", 0, max_tokens=4, hold=False)
    rig.run()
    assert twin.of(ReplyDone)[-1].since_us >= told[-1]


def test_the_question_of_a_narration_stays_and_what_was_said_is_text_memory() -> None:
    rig = rig_of("omni")
    session = rig.open(format="live", window=Window(rows=160, text_rows=24))
    client = Client(session)
    client.do("ask", 0, max_tokens=200, ignore_eos=True)
    while len(session.of(Evicted)) < 6:
        client.do("pair")
        rig.step(6)
    stream = rig.core.scheduler.streams[session.stream]
    tokenizer = rig.core.loaded.family.tokenizer
    assert stream.fronts is not None
    pinned = tokenizer.decode([id for _, run in stream.fronts.pinned.laid for id in run.ids.tolist()])
    assert "What do you see?" in pinned
    said = [event.id for event in session.of(Token)]
    memory = [id for _, run in stream.fronts.memory.laid for id in run.ids.tolist()]
    assert 12 <= len(memory) <= 24
    place = next(place for place in range(len(said)) if said[place : place + len(memory)] == memory)
    assert place >= 0


def test_a_reply_of_which_nothing_left_can_be_cut_to_nothing() -> None:
    """What was spliced in before its first token is laid again."""
    rig = rig_of("omni")
    session = rig.open(format="live", window=Window(rows=160, text_rows=0))
    live_on(rig, session, "image", 3)
    before = len(session.of(Evicted))
    session.ask("What?", max_tokens=50, ignore_eos=True)
    client = Client(session)
    while len(session.of(Evicted)) == before:
        client.do("image", 1)
        rig.step(1)
    stream = rig.core.scheduler.streams[session.stream]
    reply = stream.reply
    assert reply is not None and stream.begin <= reply.row
    spliced = len(reply.splices)
    rig.core.scheduler.apply(Interrupt(session.stream, at=-1))
    rig.deliver()
    assert session.of(ReplyDone)[-1].tokens == 0
    behind = [run for start, run in zip(stream.starts, stream.laid, strict=True) if start >= reply.row and run.seen]
    assert spliced and len(behind) >= spliced


def test_the_first_turns_are_pinned_where_asked_with_their_media() -> None:
    rig = rig_of("omni")
    session = rig.open(format="turns", window=Window(rows=240, text_rows=0, pinned_turns=1), system="You watch a door.")
    live_on(rig, session, "image", 12)
    stream = rig.core.scheduler.streams[session.stream]
    first = stream.turns[0]
    assert len(stream.turns) == 1 and len(session.of(Evicted)) > 2
    rows = rig.core.scheduler.transcript(session.stream)
    pinned = [run for run in rows if run.row < first]
    assert sum(len(run.ids) for run in pinned) == first and sum(run.seen is not None for run in pinned) == 3
    assert rig.compared == 48


def test_what_never_leaves() -> None:
    """What is larger than the cache is refused with the numbers, and so is a window for a model without one."""
    rig = rig_of("text", kv_tokens=96)
    session = rig.open(format="turns", window=Window(rows=64))
    session.text(" door" * 120)
    (error,) = session.of(Error)
    assert error.code == "context_overflow" and "96 rows" in error.message
    loaded = with_positions("text", 4096)
    loaded.family.no_window = "its positions are learned"
    fixed = SlidRig(loaded, plain("text")[0], kv_tokens=512)
    with pytest.raises(InputError, match="expected none for this model, since its positions are learned"):
        fixed.open(format="turns", window=SMALL)
    fixed.open(format="turns", window=Window())  # what a request has that says nothing
