"""Which tokens a grammar allows, and that no other is drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.family import Loaded
from penstock.engine.plan import Draw
from penstock.engine.runner.sampler import sample
from penstock.engine.words import grammar
from penstock.engine.words.grammar import Grammars
from penstock.streams.requests.structured import Structured

PAIR = Structured(regex="[a-z]{3}-[0-9]{12}")


@given(
    allowed=st.lists(st.lists(st.booleans(), min_size=21, max_size=21), min_size=1, max_size=4),
    free=st.integers(0, 2),
    temperature=st.sampled_from([0.0, 1.0]),
)
def test_what_is_not_allowed_is_not_drawn(allowed: list[list[bool]], free: int, temperature: float) -> None:
    """As if its logits were minus infinity; rows beside it are drawn as they were."""
    logits = torch.randn(len(allowed) + free, 21, generator=torch.Generator().manual_seed(1))
    bits = [sum(1 << id for id, one in enumerate(row) if one).to_bytes(4, "little") for row in allowed]
    draws = [Draw(temperature=temperature, seed=place, allowed=one) for place, one in enumerate([*bits, *[b""] * free])]
    mask = torch.tensor([*allowed, *[[True] * 21] * free])
    plain = [Draw(temperature=temperature, seed=place) for place in range(len(draws))]
    expected = [
        int(sample(row[None], [draw])[0]) for row, draw in zip(logits.where(mask, -torch.inf), plain, strict=True)
    ]
    before = logits.clone()
    assert sample(logits, draws).tolist() == expected
    assert torch.equal(logits, before)
    assert all(token == -1 or mask[place, token] for place, token in enumerate(expected))


def test_what_is_found_for_many_at_once_is_what_each_finds(
    text_loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a reply ends, or its grammar becomes too complex."""
    limits = {**grammar._LIMITS, "max_lexer_states": 60}
    monkeypatch.setattr(grammar, "_LIMITS", limits)
    grammars = Grammars(text_loaded.family.tokenizer, text_loaded.family.data.vocabulary, text_loaded.family.stop_ids)
    forms = [PAIR, Structured(regex="([ab]*a[ab]{9}c)+"), Structured(choice=["red", "green"]), Structured(regex="a{3}")]
    beside, alone = ([grammars.guide(form) for form in (*forms, *forms)] for _ in range(2))
    said: list[list[int]] = [[] for _ in beside]
    chance, ended = random.Random(5), set[int]()
    for _ in range(60):
        for guides in (beside, alone):
            for guide, ids in zip(guides, said, strict=True):
                guide.follow(ids)
        grammars.find_together(beside, 2)
        assert any(guide.found for guide in beside)
        for place, (one, other) in enumerate(zip(beside, alone, strict=True)):
            may_end = place in ended
            allowed = one.allowed(text_loaded.family.stop_ids, may_end)
            assert allowed == other.allowed(text_loaded.family.stop_ids, may_end)
            assert one.fault == other.fault
            ids = np.flatnonzero(np.unpackbits(np.frombuffer(allowed.bits, np.uint8), bitorder="little"))
            id = int(chance.choice(ids))
            if allowed.only_ends or id in text_loaded.family.stop_ids:
                ended.add(place)
            else:
                said[place].append(id)
    assert ended and any(guide.fault for guide in beside)
