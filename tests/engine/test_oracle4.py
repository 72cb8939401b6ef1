"""Batched with strangers equals alone; preempted and resumed equals never preempted; forked equals replayed.

Streams share a cache that holds hardly more than one of them, so they take pages from each other by way of the host,
and one is copied in the middle of its reply. The reference replays each alone, in one dense forward of `transformers`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.engine.family import Loaded

from .acts import Client, strangers
from .rig import Rig

pytestmark = pytest.mark.timeout(3600)  # many examples

REPLY = 16
# Steps before the copy is made, and what comes to the one and not to the other behind it.
forks = st.tuples(st.integers(0, 8), st.sampled_from([(0, 1), (1, 0), (1, 1), (2, 0)]))

# Pages, moves and forks hang on the decoder: these models show that theirs takes part.
FEWER = settings(max_examples=max(4, settings().max_examples // 3))


def compare(
    loaded: Loaded, plain: tuple[Any, Any], kinds: list[str], fork: tuple[int, tuple[int, int]], **request: Any
) -> None:
    """`kinds`: what media the model takes; the last of them goes into the running replies."""
    steps, later = fork
    rig = Rig(loaded, page_tokens=4, kv_tokens=200)
    others = strangers(rig, 3, 60, with_media="pair" in kinds)
    client = Client(rig.open(format="live", **request))
    client.do(kinds[0])
    client.do("ask", max_tokens=REPLY)
    rig.step(steps)
    twin = Client(rig.fork(client.session))
    twin.shown, twin.heard = client.shown, client.heard
    for one, count in zip((client, twin), later, strict=True):
        for number in range(count):
            one.do(kinds[-1], number)
    rig.run()
    for one in (client, twin):
        assert one.session.check(*plain) == REPLY
        assert one.session.ends() == [("length", REPLY)]
    if later[0] == later[1]:
        assert client.session.ids() == twin.session.ids()
    for other in others:
        assert other.session.check(*plain) >= 12
    assert any(plan.saves for plan in rig.plans) and any(plan.restores for plan in rig.plans)


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@given(fork=forks)
def test_omni(omni: tuple[Any, Any], omni_loaded: Loaded, fork: tuple[int, tuple[int, int]]) -> None:
    compare(omni_loaded, omni, ["pair", "sound", "image"], fork)


@FEWER
@given(fork=forks)
def test_sight(sight_plain: tuple[Any, Any], sight_served: Loaded, fork: tuple[int, tuple[int, int]]) -> None:
    compare(sight_served, sight_plain, ["pair", "image"], fork)


@FEWER
@given(fork=forks)
def test_stills(still_plain: tuple[Any, Any], still_served: Loaded, fork: tuple[int, tuple[int, int]]) -> None:
    compare(still_served, still_plain, ["image"], fork, video_fps=2.0)


@FEWER
@given(fork=forks)
def test_text(text_plain: tuple[Any, Any], text_served: Loaded, fork: tuple[int, tuple[int, int]]) -> None:
    compare(text_served, text_plain, ["text"], fork)
