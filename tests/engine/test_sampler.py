"""Draws against plain definitions of the filters, by enumeration over many seeds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.plan import Draw
from penstock.engine.runner.sampler import sample, seed_of
from transformers import RepetitionPenaltyLogitsProcessor

LOGITS = torch.tensor([2.0, 1.6, 1.0, 0.4, -0.5, -3.0])
SEEDS = 4000


def drawn(**filters: Any) -> torch.Tensor:
    """How often each token is drawn, as shares."""
    draws = [Draw(seed=seed_of(1, index), **{"temperature": 1.0, **filters}) for index in range(SEEDS)]
    tokens = sample(LOGITS.expand(SEEDS, -1), draws)
    return torch.bincount(tokens, minlength=len(LOGITS)) / SEEDS


def expected(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> torch.Tensor:
    """The distribution by the filters' definitions, token by token."""
    share = (LOGITS / temperature).softmax(0).tolist()
    order = sorted(range(len(share)), key=lambda token: -share[token])
    kept = set(order[:top_k] if top_k else order)
    total = sum(share[token] for token in kept)
    reached, nucleus = 0.0, set()
    for token in (token for token in order if token in kept):
        if reached < top_p:
            nucleus.add(token)
        reached += share[token] / total
    total = sum(share[token] for token in nucleus)
    best = max(share[token] / total for token in nucleus)
    kept = {token for token in nucleus if share[token] / total >= min_p * best}
    total = sum(share[token] for token in kept)
    return torch.tensor([share[token] / total if token in kept else 0.0 for token in range(len(share))])


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 99},
        {"top_p": 0.05},
        {"top_p": 0.7},
        {"min_p": 0.3},
        {"min_p": 1.0},
        {"temperature": 1.5, "top_k": 5, "top_p": 0.9, "min_p": 0.2},
    ],
    ids=str,
)
def test_shares(filters: dict[str, Any]) -> None:
    shares, wanted = drawn(**filters), expected(**filters)
    assert torch.equal(shares > 0, wanted > 2 / SEEDS), "tokens that are filtered away are never drawn, others are"
    # Three standard deviations of a share are at most 3 * sqrt(0.25 / 4000).
    assert float((shares - wanted).abs().max()) < 0.024


def test_temperature_0_takes_the_likeliest() -> None:
    assert sample(torch.stack([LOGITS, -LOGITS]), [Draw(), Draw()]).tolist() == [0, 5]


@given(st.integers(0, 2**63), st.integers(0, 5), st.integers(1, 4))
def test_a_draw_hangs_on_its_row_and_seed_alone(seed: int, place: int, rows: int) -> None:
    draw = Draw(temperature=0.9, top_p=0.95, seed=seed_of(seed, place))
    logits = torch.randn(rows, 50, generator=torch.Generator().manual_seed(seed % 1000))
    others = [Draw(temperature=1.0, seed=number) for number in range(rows - 1)]
    alone = sample(logits[-1:], [draw])
    assert sample(logits, [*others, draw])[-1] == alone[0]


def test_neighbouring_seeds_are_apart() -> None:
    seeds = [seed_of(seed, index) for seed in range(50) for index in range(50)]
    assert len(set(seeds)) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


SAID = st.lists(st.integers(0, 49), max_size=30)


@given(SAID, st.floats(0.3, 3.0), st.integers(0, 99))
def test_repetition_equals_the_librarys_penalty(said: list[int], penalty: float, seed: int) -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(seed))
    ids: Any = torch.tensor([said], dtype=torch.long)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())  # pyright: ignore[reportArgumentType]
    assert sample(logits, [Draw(repetition=penalty, said=tuple(said))])[0] == theirs[0].argmax()


@given(SAID, st.floats(-2, 2), st.floats(-2, 2), st.dictionaries(st.integers(0, 49), st.floats(-9, 9)), SAID)
def test_presence_frequency_bias_and_bars_by_their_definitions(
    said: list[int], presence: float, frequency: float, bias: dict[int, float], barred: list[int]
) -> None:
    barred = barred[:20]
    logits = torch.randn(50, generator=torch.Generator().manual_seed(len(said)), dtype=torch.float64)
    plain = [
        float("-inf")
        if token in barred
        else float(logit) - presence * (token in said) - frequency * said.count(token) + bias.get(token, 0.0)
        for token, logit in enumerate(logits)
    ]
    draw = Draw(
        presence=presence, frequency=frequency, said=tuple(said), bias=tuple(bias.items()), barred=tuple(barred)
    )
    token = int(sample(logits.float()[None], [draw])[0])
    assert plain[token] == pytest.approx(max(plain), abs=1e-4)


def test_what_a_draw_asks_for_touches_no_other_row() -> None:
    rows = LOGITS.expand(3, -1)
    assert sample(rows, [Draw(), Draw(barred=(0,)), Draw(said=(0,), presence=2.0)]).tolist() == [0, 1, 1]
