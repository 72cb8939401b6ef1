"""Appended while decoding equals a dense forward over the same final order of tokens and positions.

Each test lets hypothesis splice media into a running reply and compares ids, positions and the logits of every token
with plain `transformers`, which has no pages, no batch and no stream.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.family import Loaded

from .acts import COSTLY, Act, Client, acts, perform, strangers
from .rig import Rig

pytestmark = pytest.mark.timeout(3600)  # many examples

# Tokens of a page, and rows of KV cache: enough for all streams, or for hardly more than one, so that streams take
# pages from each other.
CACHES = [(4, 4096), (16, 4096), (256, 4096), (4, 256), (16, 256), (256, 256)]


def engine(cache: tuple[int, int], append_rows: int, backend: str, host_pages: int) -> dict[str, Any]:
    page_tokens, kv_tokens = cache
    sizes = {"page_tokens": page_tokens, "kv_tokens": kv_tokens, "append_rows": append_rows}
    return {**sizes, "backend": backend, "host_pages": host_pages}


engines = st.builds(
    engine,
    st.sampled_from(CACHES),
    st.sampled_from([5, 32, 256]),
    st.sampled_from(["cpu", "reference"]),
    st.sampled_from([0, 8, 1 << 16]),
)
rules = st.sampled_from(["max", "transformers"])
# How many other streams, how many words each begins with, and whether they ask first: then they are served first.
crowds = st.tuples(st.integers(0, 3), st.sampled_from([0, 20, 60, 90]), st.booleans())
MEDIA = ("frame", "pair", "sound", "image")


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@COSTLY
@given(
    config=engines,
    rule=rules,
    before=acts(*MEDIA, "text", most=3),
    during=acts(*MEDIA, "text", most=4),
    crowd=crowds,
    cut=st.none() | st.integers(0, 20),
)
def test_omni(
    omni: tuple[Any, Any],
    omni_loaded: Loaded,
    config: dict[str, Any],
    rule: str,
    before: list[Act],
    during: list[Act],
    crowd: tuple[int, int, bool],
    cut: int | None,
) -> None:
    rig = Rig(omni_loaded, **config)
    client = Client(rig.open(format="live", positions=rule))
    others, load, first = crowd
    beside = strangers(rig, others, load, with_media=True) if first else []
    perform(rig, client, before)
    client.do("ask", max_tokens=20)
    beside += [] if first else strangers(rig, others, load, with_media=True)
    perform(rig, client, during)
    if cut is not None:
        rig.step(3)
        client.session.check(*omni)
        client.do("interrupt", cut)
        client.do("pair")
        client.do("ask", 1, max_tokens=6)
    rig.run()
    assert client.session.check(*omni) >= (6 if cut is not None else 20)
    for other in beside:
        assert other.session.check(*omni) >= 12


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@COSTLY
@given(config=engines, rule=rules, during=acts("unit", most=4))
def test_sound_in_video(
    omni: tuple[Any, Any], omni_loaded: Loaded, config: dict[str, Any], rule: str, during: list[Act]
) -> None:
    """Units go into a running reply as they become whole; the last one waits for the look-ahead of its sound."""
    rig = Rig(omni_loaded, **config)
    client = Client(rig.open(format="live", positions=rule, audio_in_video=True))
    beside = strangers(rig, 1, 20)
    client.do("ask", max_tokens=24)
    perform(rig, client, [*[Act(1, "unit")] * 4, *during])
    rig.run()
    seconds, unit = 4 + len(during), omni_loaded.family.spec.unit_us // 1_000_000
    assert client.session.units == (seconds - 1) // unit
    assert client.session.check(*omni) == 24
    assert beside[0].session.check(*omni) >= 12


@COSTLY
@given(
    config=engines,
    rule=rules,
    before=acts("frame", "pair", "image", "text", most=3),
    during=acts("frame", "pair", "image", "text", most=4),
    cut=st.none() | st.integers(0, 20),
)
def test_sight(
    sight_plain: tuple[Any, Any],
    sight_served: Loaded,
    config: dict[str, Any],
    rule: str,
    before: list[Act],
    during: list[Act],
    cut: int | None,
) -> None:
    rig = Rig(sight_served, **config)
    client = Client(rig.open(format="live", positions=rule))
    beside = strangers(rig, 2, 20)
    perform(rig, client, before)
    client.do("ask", max_tokens=20)
    perform(rig, client, during)
    if cut is not None:
        rig.step(3)
        client.do("interrupt", cut)
        client.do("pair")
        client.do("ask", 1, max_tokens=6)
    rig.run()
    assert client.session.check(*sight_plain) >= (6 if cut is not None else 20)
    for other in beside:
        assert other.session.check(*sight_plain) >= 12


@COSTLY
@given(
    config=engines,
    before=acts("image", "frame", "text", most=3),
    during=acts("image", "frame", "text", most=4),
    cut=st.none() | st.integers(0, 20),
)
def test_stills(
    still_plain: tuple[Any, Any],
    still_served: Loaded,
    config: dict[str, Any],
    before: list[Act],
    during: list[Act],
    cut: int | None,
) -> None:
    """Models that take no video get pictures for frames."""
    rig = Rig(still_served, **config)
    films = "video" in still_served.family.modalities
    before, during = (
        [act if films or act.kind != "frame" else replace(act, kind="image") for act in todo]
        for todo in (before, during)
    )
    client = Client(rig.open(format="live", video_fps=2.0))
    beside = strangers(rig, 2, 20, with_media=False)
    perform(rig, client, before)
    client.do("ask", max_tokens=20)
    perform(rig, client, during)
    if cut is not None:
        rig.step(3)
        client.do("interrupt", cut)
        client.do("image")
        client.do("ask", 1, max_tokens=6)
    rig.run()
    assert client.session.check(*still_plain) >= (6 if cut is not None else 20)
    for other in beside:
        assert other.session.check(*still_plain) >= 12


@COSTLY
@given(
    config=engines,
    during=acts("text", most=4),
    crowd=crowds,
    cut=st.none() | st.integers(0, 20),
)
def test_text(
    text_plain: tuple[Any, Any],
    text_served: Loaded,
    config: dict[str, Any],
    during: list[Act],
    crowd: tuple[int, int, bool],
    cut: int | None,
) -> None:
    rig = Rig(text_served, **config)
    client = Client(rig.open(format="live", system="You watch a door."))
    others, load, first = crowd
    beside = strangers(rig, others, load, with_media=False) if first else []
    client.do("text", 3)
    client.do("ask", max_tokens=20)
    beside += [] if first else strangers(rig, others, load, with_media=False)
    perform(rig, client, during)
    if cut is not None:
        rig.step(3)
        client.do("interrupt", cut)
        client.do("ask", 1, max_tokens=6)
    rig.run()
    assert client.session.check(*text_plain) >= (6 if cut is not None else 20)
    for other in beside:
        assert other.session.check(*text_plain) >= 12


@COSTLY
@given(
    cache=st.sampled_from(CACHES),
    before=acts("pair", "sound", "image", most=2),
    steps=st.integers(0, 8),
    one=acts(*MEDIA, "text", most=3),
    other=acts(*MEDIA, "text", most=3),
)
def test_forked_equals_replayed(
    omni: tuple[Any, Any],
    omni_loaded: Loaded,
    cache: tuple[int, int],
    before: list[Act],
    steps: int,
    one: list[Act],
    other: list[Act],
) -> None:
    """A fork in mid-reply; both streams go on, each with its own media. The reference replays each from its start."""
    page_tokens, kv_tokens = cache
    rig = Rig(omni_loaded, page_tokens=page_tokens, kv_tokens=2 * kv_tokens)
    client = Client(rig.open(format="live"))
    perform(rig, client, before)
    client.do("ask", max_tokens=16)
    rig.step(steps)
    twin = Client(rig.fork(client.session))
    twin.shown, twin.heard = client.shown, client.heard
    perform(rig, client, one)
    perform(rig, twin, other)
    rig.run()
    for session in (client.session, twin.session):
        assert session.check(*omni) == 16
        assert session.ends() == [("length", 16)]
    if not one and not other:
        assert client.session.ids() == twin.session.ids()


def test_a_reply_is_held_open_while_media_is_expected(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    """The model's end token in `live` is neither told nor fed; the next span makes the last row be sampled again."""
    plain = Client(Rig(omni_loaded).open(format="live"))
    plain.do("ask", max_tokens=8)
    plain.session.rig.run()
    end = plain.session.ids()[5]
    assert end not in plain.session.ids()[:5]

    for more in (True, False):
        rig = Rig(ending_at(omni_loaded, end))
        client = Client(rig.open(format="live"))
        client.do("ask", max_tokens=12)
        rig.run()
        assert client.session.ids() == plain.session.ids()[:5]
        assert client.session.ends() == []
        if more:
            client.do("pair")
            rig.run()
            assert len(client.session.ids()) > 5
        else:
            client.session.end()
            rig.run()
            assert client.session.ends() == [("stop", 5)]
        assert client.session.check(*omni) == len(client.session.ids())


def ending_at(loaded: Loaded, id: int) -> Loaded:
    """The same model, but `id` ends its replies."""
    family = copy.copy(loaded.family)
    family.stop_ids = frozenset([id])
    return loaded._replace(family=family)
