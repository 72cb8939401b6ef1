"""Log probabilities of tokens: the model's own, whatever penalties and filters do, also across what is spliced in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from penstock.engine.family import Loaded
from penstock.engine.plan import Draw
from penstock.engine.runner.sampler import likeliest
from penstock.streams.event import Token

from .rig import Session
from .test_penalties import penalised, spoken

PENALTIES = {"repetition_penalty": 1.3, "presence_penalty": 0.7, "frequency_penalty": 0.4}
DRAWN: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalised": PENALTIES,
    "biased": {"logit_bias": {7: 3.0}},
    "drawn": {"temperature": 0.8, "top_k": 5, "seed": 3},
}


def told(session: Session) -> list[Token]:
    return session.of(Token)


@pytest.mark.parametrize("name", DRAWN)
def test_they_are_those_of_the_model_across_splices(omni_loaded: Loaded, name: str) -> None:
    session = spoken(omni_loaded, logprobs=4, **DRAWN[name])
    tokens = told(session)
    draws = [session.draws[row] for row in sorted(session.draws)]
    assert len(tokens) == len(draws) == 30
    assert len({token.seen.seq for token in tokens if token.seen}) == 3  # media came in between
    for token, (id, logits) in zip(tokens, draws, strict=True):
        shares = torch.log_softmax(logits.double(), -1)
        order = sorted(range(len(shares)), key=lambda id: -float(shares[id]))
        assert token.id == id and token.logprob == pytest.approx(float(shares[id]), abs=1e-4)
        assert [entry[2] for entry in token.top_logprobs] == pytest.approx(
            [float(shares[id]) for id in order[:4]], abs=1e-4
        )
        words = omni_loaded.family.tokenizer
        assert all(text == words.decode([id]) for id, text, _ in token.top_logprobs)
        if name == "greedy":
            assert token.top_logprobs[0][0] == id and token.top_logprobs[0][2] == token.logprob
    assert session.ids() == spoken(omni_loaded, **DRAWN[name]).ids()


def test_they_do_not_see_penalties(omni_loaded: Loaded) -> None:
    """Where a penalty decides, the drawn token is not the likeliest of those that are told."""
    session = spoken(omni_loaded, logprobs=1, **PENALTIES)
    places = [place for place, token in enumerate(told(session)) if token.top_logprobs[0][0] != token.id]
    assert places
    draws = [session.draws[row] for row in sorted(session.draws)]
    for place in places:
        values = penalised(draws[place][1], session.ids()[:place], PENALTIES)
        assert values[session.ids()[place]] == pytest.approx(max(values), abs=1e-4)


def test_nothing_is_told_where_nobody_asks(omni_loaded: Loaded) -> None:
    tokens = told(spoken(omni_loaded))
    assert all(token.logprob is None and token.top_logprobs == () for token in tokens)
    alone = told(spoken(omni_loaded, logprobs=0))
    assert all(token.logprob is not None and token.top_logprobs == () for token in alone)


def test_each_draw_has_its_own() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 5.0, 1.0], [1.0, 1.5, 0.0]])
    draws = [Draw(logprobs=2), Draw(), Draw(logprobs=9)]
    first, none, last = likeliest(logits, [2, 1, 1], draws)
    assert none is None and first is not None and last is not None
    assert first.logprob == pytest.approx(float(logits[0].log_softmax(-1)[2]))
    assert [id for id, _ in first.top] == [0, 1]
    assert [id for id, _ in last.top] == [1, 0, 2]
    assert likeliest(logits, [0, 0, 0], [Draw()] * 3) == []
