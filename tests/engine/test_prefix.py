"""A stream that begins as another did goes on with what that has computed, and says what it would have said without.

The reference computes every stream alone, in one dense forward pass of `transformers`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.plan import Plan
from penstock.streams.event import Appended, ReplyDone
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.fixtures.recipe import model_path

from .acts import FRAMES, Client
from .rig import FRAME_US, Rig, Session

REPLY = 6
SYSTEMS = ["You watch a door, and say who comes and who goes.", "You watch a door, and say nothing at all."]
QUESTIONS = ["Who came in?", "Who came in, and when was it?", "What?"]
SALTS = [None, None, "one tenant"]


def computed(plans: list[Plan], session: Session) -> int:
    """How many rows of it were fed."""
    return sum(len(run) for plan in plans for feed in plan.feeds if feed.stream == session.stream for run in feed.rows)


def found(session: Session) -> int:
    """What the event at the end of its first reply says."""
    return session.of(ReplyDone)[0].cached


class Crowd:
    """Streams over one small cache that begin alike, and come and go."""

    def __init__(self, loaded: Loaded, plain: tuple[Any, Any], **config: Any) -> None:
        self.rig = Rig(loaded, page_tokens=4, **config)
        self.plain = plain
        self.open: list[Client] = []

    def do(self, kind: str, place: int, size: int) -> None:
        if kind == "begin" and len(self.open) < 5:
            system, salt = SYSTEMS[size % len(SYSTEMS)], SALTS[place % len(SALTS)]
            client = Client(self.rig.open(format="turns", system=system, cache_salt=salt))
            client.session.ask(QUESTIONS[size % len(QUESTIONS)], max_tokens=REPLY)
            self.open.append(client)
        elif kind == "steps":
            self.rig.step(size + 1)  # looks whether pages conserve, after each
        elif self.open:
            client = self.open[place % len(self.open)]
            session = client.session
            if kind == "ask":
                session.ask(QUESTIONS[size % len(QUESTIONS)], max_tokens=REPLY)
            elif kind == "interrupt" and session.story.replying:
                client.do("interrupt", size)
            elif kind == "fork" and len(self.open) < 5 and not session.story.waiting:
                self.open.append(Client(self.rig.fork(session)))
            elif kind == "close" and not session.story.waiting:
                self.leave(client)

    def leave(self, client: Client) -> None:
        """What it has said so far is right, and it goes."""
        client.session.check_logits(self.plain[0], client.session.expected(*self.plain))
        client.session.close()
        self.open.remove(client)
        del self.rig.sessions[client.session.stream]

    def end(self) -> None:
        self.rig.run()
        for client in list(self.open):
            client.session.check(*self.plain)
            self.leave(client)
        self.rig.core.scheduler.check()
        assert self.rig.core.scheduler.pool.free == self.rig.core.scheduler.pool.pages


KINDS = ["begin", "begin", "begin", "steps", "steps", "close", "ask", "fork", "interrupt"]
doings = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 4), st.integers(0, 8)), min_size=4, max_size=24)


@given(doings, st.sampled_from([120, 200, 400]), st.sampled_from([0, 8, 1 << 16]), st.sampled_from([7, 256]))
def test_streams_say_what_they_would_say_alone(
    text_qwen: tuple[Any, Any],
    text_loaded: Loaded,
    todo: list[tuple[str, int, int]],
    rows: int,
    host_pages: int,
    append_rows: int,
) -> None:
    """Pages are short, so that what can be found goes, and streams are preempted and fed once more."""
    crowd = Crowd(text_loaded, text_qwen, kv_tokens=rows, host_pages=host_pages, append_rows=append_rows)
    alike = [("begin", 0, 0), ("steps", 0, 8), ("begin", 0, 0), ("steps", 0, 0)]
    for kind, place, size in [*alike, *todo]:
        crowd.do(kind, place, size)
    crowd.end()
    figures = crowd.rig.core.scheduler.statistics()
    assert 0 < figures["prefix_hits"] < figures["prefix_queries"]


def begins(rig: Rig, kind: str, number: int, question: str, **request: Any) -> Session:
    """A stream that shows one thing of `kind` and asks; it is done."""
    client = Client(rig.open(**{"format": "turns", "system": SYSTEMS[0], "video_fps": 2.0, **request}))
    if kind == "pair":
        for place in range(2):  # at the same times, whichever they are
            client.session.frame(FRAMES[2 * number + place], place * FRAME_US)
    else:
        client.do(kind, number)
    client.session.ask(question, max_tokens=REPLY)
    rig.run()
    return client.session


def media_is_told_apart(loaded: Loaded, plain: tuple[Any, Any], kind: str) -> None:
    """The same thing is found, and in it the row where it ends lies wherever it lies. Another one of the same size has
    the same ids and is not found: only the words before it are."""
    rig = Rig(loaded, page_tokens=4)
    first = begins(rig, kind, 0, "What is it?")
    again = begins(rig, kind, 0, "Who is it?")
    other = begins(rig, kind, 1, "What is it?")
    salted = begins(rig, kind, 0, "What is it?", cache_salt="a tenant")
    for session in (first, again, other, salted):
        assert session.check(*plain) == REPLY
    (seen,) = first.of(Appended)
    assert found(first) == found(salted) == 0
    assert seen.row + seen.rows - 4 < found(again) < seen.row + seen.rows + 12
    assert seen.row - 4 < found(other) <= seen.row
    assert [event for event in again.of(Appended)] == [seen], "it is told of what it did not compute"
    assert computed(rig.plans, first) - computed(rig.plans, again) >= found(again) - 2


@pytest.mark.parametrize("kind", ["image", "pair"])
def test_pictures_on_three_axes(sight_plain: tuple[Any, Any], sight_served: Loaded, kind: str) -> None:
    media_is_told_apart(sight_served, sight_plain, kind)


def test_pictures_on_one_axis(still_plain: tuple[Any, Any], still_served: Loaded) -> None:
    media_is_told_apart(still_served, still_plain, "image")


def test_rows_that_see_one_another_may_be_found_in_part() -> None:
    """Those that are found were computed with the whole picture in view, and the others see all of it."""
    path = model_path("gemma3")
    plain = AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)
    loaded, parts = load(path, EngineConfig()), []
    for size in (4, 6, 7, 11):
        rig = Rig(loaded, page_tokens=size)
        sessions = [begins(rig, "image", 0, question) for question in QUESTIONS[1:]]
        for session in sessions:
            assert session.check(*plain) == REPLY
        (seen,) = sessions[0].of(Appended)
        parts.append(found(sessions[1]) - seen.row)
    assert any(0 < part < seen.rows for part in parts), parts


@pytest.mark.parametrize("kind", ["image", "pair"])
def test_pictures_of_a_model_that_hears(omni: tuple[Any, Any], omni_loaded: Loaded, kind: str) -> None:
    media_is_told_apart(omni_loaded, omni, kind)


def test_sound_is_not_found(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    """How it sounds hangs on what its stream has heard before."""
    rig = Rig(omni_loaded, page_tokens=4)
    sessions = [begins(rig, "sound", 3, "What is it?") for _ in range(2)]
    assert found(sessions[1]) <= sessions[0].of(Appended)[0].row
    for session in sessions:
        assert session.check(*omni) == REPLY


def test_other_positions_are_other_rows(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    """Pairs of frames at another rate are the same pictures with the same ids at other positions."""
    rig = Rig(omni_loaded, page_tokens=4)
    rates = (2, 2, 1)
    sessions = [rig.open(format="turns", system=SYSTEMS[0], video_fps=float(rate)) for rate in rates]
    for session, rate in zip(sessions, rates, strict=True):
        for number, pixels in enumerate(FRAMES[:6]):
            session.frame(pixels, number * 1_000_000 // rate)
        session.ask("What is it?", max_tokens=REPLY)
        rig.run()
        assert session.check(*omni) == REPLY
    first, second, third = sessions[0].of(Appended)
    assert third.row < found(sessions[1])
    assert first.row < found(sessions[2]) <= second.row, "time goes on after the first pair"


def test_it_is_off_where_it_is_off(text_qwen: tuple[Any, Any], text_loaded: Loaded) -> None:
    rig = Rig(text_loaded, page_tokens=4, prefix_cache=False)
    for _ in range(2):
        session = begins(rig, "text", 0, "What?")
        assert found(session) == 0 and session.check(*text_qwen) == REPLY
    assert rig.core.scheduler.statistics()["prefix_pages"] == 0


def test_no_stream_is_moved_for_what_can_be_found(text_loaded: Loaded) -> None:
    """Pages that nobody holds are free: those who need them get them, and no stream makes room."""
    rig = Rig(text_loaded, page_tokens=4, kv_tokens=400)
    for number in range(12):
        session = begins(rig, "text", number, f"{number} {QUESTIONS[1]}")
        session.close()
        del rig.sessions[session.stream]
    scheduler = rig.core.scheduler
    assert scheduler.pool.free == 100 and scheduler.statistics()["prefix_pages_idle"] > 80, "nearly all"
    waits = rig.open(format="turns", system=SYSTEMS[0])
    waits.ask("What?", max_tokens=2)
    rig.run()
    grows = rig.open(format="turns")
    grows.text("door " * 150)
    grows.ask("What?", max_tokens=20)
    rig.run()
    assert grows.ends() == [("length", 20)]
    assert not any(plan.saves or plan.restores for plan in rig.plans)
    assert scheduler.streams[waits.stream].table.pages


def test_what_a_lost_stream_computed_is_found_again(text_qwen: tuple[Any, Any], text_loaded: Loaded) -> None:
    """Its pages are taken, and most are still there when it is fed once more."""
    rig = Rig(text_loaded, page_tokens=4, kv_tokens=200, host_pages=0)
    idle = begins(rig, "text", 0, "What?")
    grows = rig.open(format="turns")
    grows.text("door " * 40)
    grows.ask("What?", max_tokens=100)
    rig.run()
    assert not rig.core.scheduler.streams[idle.stream].table.pages
    grows.close()
    del rig.sessions[grows.stream]
    plans = len(rig.plans)
    idle.ask("And?", max_tokens=REPLY)
    rig.run()
    assert idle.check(*text_qwen) == 2 * REPLY
    assert 0 < rig.core.scheduler.streams[idle.stream].found < 60
    assert computed(rig.plans[plans:], idle) < rig.core.scheduler.streams[idle.stream].rows
