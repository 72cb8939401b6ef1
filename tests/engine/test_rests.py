"""Formats in which a reply rests before anything goes in: `per-frame` and `units`.

What is said hangs on the order of what was offered alone, not on when it came; and the logits are those of a dense
forward over the finished sequence. The fixture's model is made to fall silent often.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.family import Loaded
from penstock.streams.event import Appended, Error, ReplyDone
from penstock.streams.segment import ImageSegment, VideoSegment

from .acts import FRAMES, Act, Client, acts, perform, strangers
from .rig import Rig

pytestmark = pytest.mark.timeout(3600)  # many examples

SECOND = 1_000_000


@pytest.fixture(scope="module")
def silent(omni_loaded: Loaded) -> Loaded:
    """A model to which one id in four means silence."""
    family = copy.copy(omni_loaded.family)
    family.stop_ids = frozenset(range(0, family.data.vocabulary, 4))
    return omni_loaded._replace(family=family)


def played(loaded: Loaded, request: dict[str, Any], before: list[Act], during: list[Act], crowd: int) -> Client:
    rig = Rig(loaded, page_tokens=16, kv_tokens=4096)
    strangers(rig, crowd)
    client = Client(rig.open(**request))
    perform(rig, client, before)
    client.do("ask", max_tokens=24)
    perform(rig, client, during)
    client.session.end()
    rig.run()
    return client


resting = st.one_of(
    st.just({"format": "per-frame"}),
    st.builds(lambda tokens: {"format": "units", "unit_tokens": tokens}, st.integers(1, 5)),
)


@given(
    request_=resting,
    before=acts("pair", "image", "text", most=2),
    during=acts("frame", "pair", "image", "text", "ask", most=6),
    crowd=st.integers(0, 2),
)
def test_a_dense_forward_over_what_was_laid_says_the_same(
    omni: tuple[Any, Any],
    silent: Loaded,
    request_: dict[str, Any],
    before: list[Act],
    during: list[Act],
    crowd: int,
) -> None:
    session = played(silent, request_, before, during, crowd).session
    assert session.check(*omni) == sum(tokens for _, tokens in session.ends())
    assert len(session.ends()) == session.story.reply


@given(
    request_=resting,
    before=acts("pair", "sound", "text", most=2),
    during=acts("frame", "pair", "sound", "image", "text", "ask", most=7),
    crowd=st.integers(0, 2),
)
def test_when_things_come_changes_nothing(
    silent: Loaded, request_: dict[str, Any], before: list[Act], during: list[Act], crowd: int
) -> None:
    slow = played(silent, request_, before, during, crowd).session
    at_once = [Act(0, act.kind, act.size) for act in during]
    fast = played(silent, request_, before, at_once, 0).session
    assert fast.ends() == slow.ends()
    ids, places = fast.transcript()
    assert ids == slow.transcript()[0]
    assert torch.equal(places, slow.transcript()[1])


def test_a_reply_that_rests_is_drawn_anew_with_another_seed(silent: Loaded) -> None:
    """Else a model that speaks with some chance at each frame would be silent until it is sure to speak."""
    rig = Rig(silent, kv_tokens=4096)
    client = Client(rig.open(format="per-frame"))
    client.do("ask", max_tokens=24, temperature=1.0, seed=5)
    for _ in range(8):
        client.do("pair")
    client.session.end()
    rig.run()
    seeds = [feed.draw.seed for plan in rig.plans for feed in plan.feeds if feed.draw is not None]
    assert len(set(seeds)) == len(seeds) > len(client.session.ids()) + 1


def test_a_unit_is_what_ends_in_one_second(silent: Loaded) -> None:
    """Two pairs of frames and two seconds of sound, twice: what ends in a second goes in together, behind at most
    so many tokens."""
    rig = Rig(silent, kv_tokens=4096)
    client = Client(rig.open(format="units", unit_tokens=3))
    client.do("ask", max_tokens=200)
    for _ in range(2):
        client.do("pair")
        client.do("sound", 8)  # 2.25 s: blocks of 2 s, which end in the second of the second pair
        client.do("pair")
    client.session.end()
    rig.run()
    session = client.session
    taken = [(event.modality, event.stop_us, event.row + event.rows) for event in session.of(Appended)]
    kinds = [(kind, stop_us // SECOND) for kind, stop_us, _ in taken]
    assert kinds == [("video", 0), ("audio", 2), ("video", 1), ("video", 2), ("audio", 4), ("video", 3), ("audio", 4)]
    stops = [stop for _, _, stop in taken]
    behind = [
        sum(stop <= row + 1 < following for row in session.draws) for stop, following in itertools.pairwise(stops)
    ]
    # Up to three tokens and a silence behind each second, nothing between its parts.
    assert behind[1] == behind[4] == 0 and all(1 <= behind[place] <= 4 for place in (0, 2, 3, 5))


@pytest.mark.parametrize("format", ["live", "per-frame", "units"])
def test_the_last_media_is_drawn_from_though_the_end_comes_with_it(silent: Loaded, format: str) -> None:
    """The reply is silent, and held open, when both come."""
    rig = Rig(silent, kv_tokens=4096)
    client = Client(rig.open(format=format))
    client.do("ask", max_tokens=200)
    rig.run()
    client.do("pair")
    client.session.end()
    rig.run()
    (last,) = client.session.of(Appended)
    assert last.row + last.rows in client.session.draws  # behind the pair stands its closing mark
    assert client.session.ends()[0][0] == "stop"


@pytest.mark.parametrize("ending", ["media", "end", "answer"])
def test_a_reply_in_units_waits_for_the_next_second(omni_loaded: Loaded, ending: str) -> None:
    rig = Rig(omni_loaded, kv_tokens=4096)
    session = rig.open(format="units", unit_tokens=4)
    client = Client(session)
    client.do("ask", max_tokens=10, ignore_eos=True, hold=ending != "answer")
    rig.run()
    if ending == "answer":
        assert session.ends() == [("length", 10)]
        return
    assert len(session.ids()) == 4 and not session.of(ReplyDone)
    if ending == "media":
        client.do("pair")
        rig.run()
        assert len(session.ids()) == 4, "more of this second may come"
        client.do("pair")
        rig.run()
        assert len(session.ids()) == 8
    session.end()
    rig.run()
    assert session.ends() == [("length", 10)]


def test_a_reply_whose_next_second_is_refused_goes_on(omni_loaded: Loaded) -> None:
    """The cache has no room for the pictures, but for the words."""
    rig = Rig(omni_loaded, kv_tokens=4096)
    session = rig.open(format="units", unit_tokens=4, reserve_tokens=64)
    client = Client(session)
    client.do("ask", max_tokens=100, ignore_eos=True)
    rig.run()
    while not session.of(Error):
        told = len(session.ids())
        client.do("image")
        rig.run()
    assert [error.code for error in session.of(Error)] == ["context_overflow"]
    assert len(session.ids()) > told


def clip(index: int, stop_s: int) -> VideoSegment:
    pixels = FRAMES[2 * index : 2 * index + 2]
    return VideoSegment(2, index, pixels, stop_s * SECOND - 500_000, stop_s * SECOND)


def test_what_comes_late_joins_the_unit_that_goes_in(silent: Loaded) -> None:
    """Something of the first second between two parts of the second one: all three go in together."""
    rig = Rig(silent, kv_tokens=4096)
    session = rig.open(format="units", unit_tokens=4)
    Client(session).do("ask", max_tokens=200)
    rig.run()
    rig.core.append(session.stream, 2, [clip(index, stop_s) for index, stop_s in enumerate((2, 1, 2, 3))])
    rig.run()
    taken = session.of(Appended)
    assert [event.stop_us for event in taken] == [2 * SECOND, SECOND, 2 * SECOND], "the third second is not whole yet"
    drawn = [row for row in session.draws if row >= taken[0].row]
    assert drawn and min(drawn) == taken[2].row + taken[2].rows


def test_a_picture_waits_for_no_later_second(silent: Loaded) -> None:
    """Also where it says at which time it was taken."""
    rig = Rig(silent, kv_tokens=4096)
    session = rig.open(format="units")
    Client(session).do("ask", max_tokens=200)
    rig.run()
    rig.core.append(session.stream, 2, [ImageSegment(2, 0, FRAMES[0], SECOND, SECOND)])
    rig.run()
    assert [event.modality for event in session.of(Appended)] == ["image"]


def test_a_reply_that_waited_for_media_is_young_again(omni_loaded: Loaded) -> None:
    """Its newest token is not fed yet; that gives it no right of way over streams that came meanwhile."""
    rig = Rig(omni_loaded, kv_tokens=4096)
    resting, other = rig.open(format="units", unit_tokens=2), rig.open()
    Client(resting).do("ask", max_tokens=8, ignore_eos=True)
    rig.run()
    Client(other).do("ask", max_tokens=8)
    Client(resting).do("pair")
    streams = rig.core.scheduler.streams
    assert streams[resting.stream].since > streams[other.stream].since


@pytest.mark.parametrize("format", ["per-frame", "units"])
def test_a_question_waits_until_the_reply_rests_and_an_interrupt_does_not(omni_loaded: Loaded, format: str) -> None:
    rig = Rig(omni_loaded, kv_tokens=4096)
    session = rig.open(format=format, unit_tokens=8)
    client = Client(session)
    client.do("ask", max_tokens=12, ignore_eos=True)
    rig.step(3)
    client.do("ask", 1, max_tokens=4, ignore_eos=True)
    rig.step(2)
    assert not session.ends()
    if format == "units":
        rig.run()
        assert session.ends() == [("stop", 8), ("length", 4)]
        return
    session.interrupt()
    assert session.ends()[0][0] == "interrupted"
    rig.run()
    assert session.ends()[1:] == [("length", 4)]
