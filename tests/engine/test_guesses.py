"""Guessed tokens change nothing but the number of steps: whatever is guessed, a reply says what it says without."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.family import Loaded

from .acts import COSTLY, Act, Client, acts, perform, strangers
from .guessed import always, guessing_rig
from .test_oracle3 import CACHES

CHANCES = st.sampled_from([0.0, 0.5, 0.8, 1.0])


@COSTLY
@given(
    cache=st.sampled_from(CACHES),
    right=CHANCES,
    seed=st.integers(0, 99),
    before=acts("pair", "sound", "image", "text", most=2),
    during=acts("frame", "pair", "sound", "image", "text", most=4),
    others=st.integers(0, 2),
    cut=st.none() | st.integers(0, 20),
)
def test_a_dense_forward_says_the_same(
    omni: tuple[Any, Any],
    omni_loaded: Loaded,
    cache: tuple[int, int],
    right: float,
    seed: int,
    before: list[Act],
    during: list[Act],
    others: int,
    cut: int | None,
) -> None:
    """With media in mid-reply, beside strangers, preempted and interrupted: rows, positions and logits."""
    page_tokens, kv_tokens = cache
    with always():
        rig, guesser = guessing_rig(omni_loaded, right, seed, page_tokens=page_tokens, kv_tokens=kv_tokens)
        client = Client(rig.open(format="live"))
        perform(rig, client, before)
        client.do("ask", max_tokens=20)
        beside = strangers(rig, others, 20, with_media=True)
        perform(rig, client, during)
        if cut is not None:
            rig.step(2)
            client.do("interrupt", cut)
            client.do("pair")
            client.do("ask", 1, max_tokens=6)
        rig.run()
    assert guesser.guessed
    assert rig.core.scheduler.statistics()["guesses_right"] == guesser.right
    assert client.session.check(*omni) >= (6 if cut is not None else 20)
    for other in beside:
        assert other.session.check(*omni) >= 12
