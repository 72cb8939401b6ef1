"""Guessed tokens change nothing but the number of steps: whatever is guessed, a reply says what it says without."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from penstock.engine.core import make_parts
from penstock.engine.family import Loaded
from penstock.engine.scheduling.journal import Journal, replay
from penstock.streams.event import Event, Evicted, ReplyDone, Token
from penstock.streams.requests.window import Window

from .acts import COSTLY, Act, Client, acts, perform, strangers
from .guessed import Guesser, always, config_of
from .rig import Rig
from .test_oracle3 import CACHES, ending_at

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
    host_pages=st.sampled_from([0, 1 << 16]),
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
    host_pages: int,
) -> None:
    """With media in mid-reply, beside strangers, preempted and interrupted: rows, positions and logits."""
    page_tokens, kv_tokens = cache
    with always():
        rig = Rig(omni_loaded, **config_of("ngram", page_tokens, kv_tokens, host_pages))
        guesser = Guesser(rig, right, seed)
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


PARAMS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0, "max_tokens": 30},
    "drawn": {"temperature": 0.9, "top_p": 0.95, "top_k": 40, "min_p": 0.01, "seed": 3},
    "penalties": {"temperature": 0.7, "seed": 1, "repetition_penalty": 1.3, "frequency_penalty": 0.4},
    "bias": {"temperature": 0, "logit_bias": {7: 4.0, 9: -3.0}, "repetition_penalty": 1.2},
    "least": {"temperature": 1.2, "seed": 8, "min_tokens": 12},
    "logprobs": {"temperature": 0.9, "seed": 4, "logprobs": 3},
    "short": {"temperature": 0, "max_tokens": 1},
}


@pytest.mark.parametrize("name", PARAMS)
def test_clients_are_told_the_same(text_loaded: Loaded, name: str) -> None:
    """Events, and the cache: rows of wrong guesses have left nothing in it."""
    params = {"max_tokens": 30, "hold": False, "ignore_eos": False, **PARAMS[name]}
    plain, without = spoken(text_loaded, None, **params)
    rig, with_guesses = spoken(text_loaded, 0.8, **params)
    assert alike(with_guesses) == alike(without)
    assert len(rig.plans) < len(plain.plans) or name == "short"
    for ours, theirs in zip(cached(rig), cached(plain), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("right", [0.8, 1.0])
def test_a_stop_string_ends_a_reply_among_guesses(text_loaded: Loaded, right: float) -> None:
    _, without = spoken(text_loaded, None, max_tokens=30)
    tokens = [event for event in without if isinstance(event, Token)]
    stop = "".join(event.text for event in tokens[8:11])
    ways: list[dict[str, Any]] = [{"stop": [stop]}, {"stop_token_ids": [tokens[7].id]}]
    for params in ways:
        plain, before = spoken(text_loaded, None, max_tokens=30, **params)
        rig, after = spoken(text_loaded, right, max_tokens=30, **params)
        assert alike(after) == alike(before)
        assert [event.reason for event in after if isinstance(event, ReplyDone)][0] == "stop"
        for ours, theirs in zip(cached(rig), cached(plain), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("unit_tokens", [1, 3, 8])
def test_a_unit_pauses_a_reply_among_guesses(omni: tuple[Any, Any], omni_loaded: Loaded, unit_tokens: int) -> None:
    with always():
        rig = Rig(omni_loaded, speculative="ngram")
        Guesser(rig, 1.0)
        client = Client(rig.open(format="units", unit_tokens=unit_tokens))
        client.do("pair")
        client.do("ask", max_tokens=100)
        for _ in range(4):
            client.do("pair")
            rig.run()
    assert len(client.session.ids()) >= 3 * unit_tokens
    assert rig.core.scheduler.statistics()["guesses_right"] or unit_tokens == 1
    assert client.session.check(*omni) == len(client.session.ids())


def test_a_reply_rests_among_guesses(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    """An end token that was guessed is neither told nor fed; the next span makes the row before it be drawn again."""
    plain = Client(Rig(omni_loaded).open(format="live"))
    plain.do("ask", max_tokens=8)
    plain.session.rig.run()
    end = plain.session.ids()[5]
    with always():
        rig = Rig(ending_at(omni_loaded, end), speculative="ngram")
        Guesser(rig, 1.0)
        client = Client(rig.open(format="live"))
        client.do("ask", max_tokens=12)
        rig.run()
        assert client.session.ids() == plain.session.ids()[:5] and not client.session.ends()
        client.do("pair")
        rig.run()
    assert len(client.session.ids()) > 5
    assert client.session.check(*omni) == len(client.session.ids())


def test_a_window_slides_among_guesses(text_loaded: Loaded) -> None:
    """What stood behind the slide is computed again, without what has left."""
    window, params = Window(rows=64, text_rows=8), {"max_tokens": 60, "hold": False, "ignore_eos": True}
    _, without = spoken(text_loaded, None, window, **params)
    rig, with_guesses = spoken(text_loaded, 0.9, window, **params)
    assert alike(with_guesses) == alike(without)
    assert len([event for event in with_guesses if isinstance(event, Evicted)]) >= 3
    assert rig.core.scheduler.statistics()["guesses_right"] > 40


@COSTLY
@given(
    during=acts("text", "interrupt", most=4),
    seed=st.none() | st.integers(0, 9),
    kind=st.sampled_from(["ngram", "self"]),
)
@example(during=[], seed=1, kind="self")
def test_a_run_is_repeated(text_loaded: Loaded, during: list[Act], seed: int | None, kind: str) -> None:
    """A record says nothing of guesses but what they cost: they come again by themselves."""
    loaded = text_loaded._replace(draft=text_loaded if kind == "self" else None)
    rig = Rig(loaded, **(config := config_of(kind, 16, 1024)))
    journal = rig.core.scheduler.journal = Journal(rig.core.language.spans)
    client = Client(rig.open(format="live"))
    client.do("text", 3)
    client.do("ask", max_tokens=40, temperature=0.8, seed=seed)
    perform(rig, client, during)
    rig.run()
    parts = make_parts(loaded, msgspec.structs.replace(rig.core._config, **config))
    again = list(replay(journal.entries, *parts))
    assert [event for one in again for _, event in one.events] == client.session.events
    assert all(one.result == one.entry for one in again if one.result is not None)
    assert kind == "ngram" or during or rig.core.scheduler.statistics()["guesses"]


def spoken(loaded: Loaded, right: float | None, window: Window | None = None, **params: Any) -> tuple[Rig, list[Event]]:
    """Two questions and their replies, in an engine whose guesses are right with this chance; None: it has none."""
    with always():
        rig = Rig(loaded, page_tokens=4, kv_tokens=1024, speculative=None if right is None else "ngram")
        if right is not None:
            Guesser(rig, right)
        client = Client(rig.open(format="turns", window=window))
        for number in range(2):
            client.do("ask", number, **params)
            rig.run()
    return rig, client.session.events


def alike(events: list[Event]) -> list[Event]:
    """Log probabilities are rounded: other rows in a step give other last digits."""
    return [_rounded(event) if isinstance(event, Token) else event for event in events]


def _rounded(token: Token) -> Token:
    top = tuple((id, text, round(logprob, 3)) for id, text, logprob in token.top_logprobs)
    logprob = None if token.logprob is None else round(token.logprob, 3)
    return msgspec.structs.replace(token, logprob=logprob, top_logprobs=top)


def cached(rig: Rig) -> list[torch.Tensor]:
    """Keys and values of all rows of the only stream, layer by layer, `(rows, heads, dim)`."""
    [stream] = rig.core.scheduler.streams.values()
    rows = torch.tensor([stream.table.row(place) for place in range(stream.begin, stream.fed)])
    language = rig.core.language
    return [pool.flatten(0, 1)[rows] for pool in (*language.cache.keys, *language.cache.values)]
