"""Penalties, biases and end tokens of a reply, in the engine: they see its own tokens and go on across a splice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from penstock.engine.family import Loaded
from penstock.engine.plan import Draw
from penstock.engine.runner.sampler import sample, seed_of

from .acts import Client
from .rig import Rig, Session
from .test_oracle3 import ending_at

PENALTIES = {
    "repetition": {"repetition_penalty": 1.7},
    "presence": {"presence_penalty": 2.0},
    "frequency": {"frequency_penalty": 1.5},
    "all": {"repetition_penalty": 1.2, "presence_penalty": 0.7, "frequency_penalty": 0.4},
}


def spoken(loaded: Loaded, **params: Any) -> Session:
    """A reply of 30 tokens with a pair of frames and a picture in it."""
    rig = Rig(loaded, page_tokens=16, kv_tokens=2048)
    client = Client(rig.open(format="live"))
    client.do("pair")
    client.do("ask", max_tokens=30, **params)
    for kind in ("pair", "image"):
        rig.step(8)
        client.do(kind)
    rig.run()
    return client.session


def penalised(logits: torch.Tensor, said: list[int], params: dict[str, float]) -> list[float]:
    """By the definitions, token by token."""
    values = logits.tolist()
    for token in set(said):
        penalty = params.get("repetition_penalty", 1.0)
        values[token] = values[token] / penalty if values[token] > 0 else values[token] * penalty
        values[token] -= params.get("presence_penalty", 0.0)
        values[token] -= params.get("frequency_penalty", 0.0) * said.count(token)
    return values


@pytest.mark.parametrize("name", PENALTIES)
def test_each_token_is_the_best_after_what_the_reply_said(omni_loaded: Loaded, name: str) -> None:
    params = PENALTIES[name]
    session = spoken(omni_loaded, **params)
    draws = [session.draws[row] for row in sorted(session.draws)]
    assert len(draws) == 30 and [token for token, _ in draws] == session.ids()
    for place, (token, logits) in enumerate(draws):
        values = penalised(logits, session.ids()[:place], params)
        assert values[token] == pytest.approx(max(values), abs=1e-4)
    assert session.ids() != spoken(omni_loaded).ids()


def test_the_seed_of_a_token_is_its_place_in_the_reply(omni_loaded: Loaded) -> None:
    """Whatever was spliced before it."""
    session = spoken(omni_loaded, temperature=0.9, seed=3)
    draws = [session.draws[row] for row in sorted(session.draws)]
    assert len(draws) == 30 and [token for token, _ in draws] == session.ids()
    for place, (token, logits) in enumerate(draws):
        assert int(sample(logits[None], [Draw(0.9, seed=seed_of(3, place))])) == token
    assert session.ids() != spoken(omni_loaded).ids()


def test_the_next_reply_begins_with_nothing_said(omni_loaded: Loaded) -> None:
    params: dict[str, Any] = PENALTIES["all"]
    rig = Rig(omni_loaded, page_tokens=16, kv_tokens=2048)
    client = Client(rig.open(format="turns"))
    for _ in range(2):
        client.do("ask", max_tokens=12, **params)
        rig.run()
    session = client.session
    draws = [session.draws[row] for row in sorted(session.draws)][-12:]
    assert [token for token, _ in draws] == session.ids()
    for place, (token, logits) in enumerate(draws):
        values = penalised(logits, session.ids()[:place], params)
        assert values[token] == pytest.approx(max(values), abs=1e-4)


def test_a_bias_forces_and_forbids(omni_loaded: Loaded) -> None:
    plain = spoken(omni_loaded).ids()
    assert plain[0] not in spoken(omni_loaded, logit_bias={plain[0]: -100.0}).ids()
    assert set(spoken(omni_loaded, logit_bias={7: 100.0}).ids()) == {7}


def test_end_tokens_wait_for_the_least_number_or_are_words(omni_loaded: Loaded) -> None:
    plain = spoken(omni_loaded).ids()
    end = plain[4]
    first = plain.index(end)
    loaded = ending_at(omni_loaded, end)
    assert spoken(loaded, hold=False).ids() == plain[:first]
    longer = spoken(loaded, hold=False, min_tokens=first + 3).ids()
    assert len(longer) >= first + 3 and longer[:first] == plain[:first] and end not in longer[: first + 3]
    spliced = spoken(loaded, hold=False, min_tokens=20).ids()  # media goes in behind 8 and 16 tokens
    assert len(spliced) >= 20 and end not in spliced[:20]
    assert spoken(loaded, hold=False, ignore_eos=True).ids() == plain
    assert spoken(omni_loaded, hold=False, ignore_eos=True, stop_token_ids=(end,)).ids() == plain[:first]
