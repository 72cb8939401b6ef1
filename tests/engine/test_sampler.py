"""Draws against plain definitions of the filters: which tokens are left, and how often each is drawn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from penstock.engine.plan import Draw
from penstock.engine.runner import filters
from penstock.engine.runner.blocks import BLOCK, best, largest
from penstock.engine.runner.filters import weights
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


def test_neighbouring_seeds_are_apart() -> None:
    seeds = [seed_of(seed, index) for seed in range(50) for index in range(50)]
    assert len(set(seeds)) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


def plainly(logits: list[float], draw: Draw, near: float = 1e-5) -> list[float]:
    """The weights by the filters' definitions, token by token; no example where rounding decides."""
    most = max(logits)
    share = [math.exp((logit - most) / draw.temperature) for logit in logits]
    order = sorted(range(len(share)), key=lambda token: (-share[token], token))
    if 0 < draw.top_k < len(order):
        order = [token for token in order if share[token] >= share[order[draw.top_k - 1]]]
    room, before, kept = draw.top_p * sum(share[token] for token in order), 0.0, []
    for token in order:
        assert not near or assume(draw.top_p == 1 or abs(before - room) > near)
        if draw.top_p == 1 or before < room:
            kept.append(token)
        before += share[token]
    assert not near or assume(all(abs(value - draw.min_p) > near for value in share if value != 1))
    return [value if token in kept and value >= draw.min_p else 0.0 for token, value in enumerate(share)]


LEFT = st.builds(
    Draw,
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 0, 1, 7, 50, 100, 290, 5000]),
    top_p=st.sampled_from([1.0, 1.0, 0.02, 0.6, 0.93]),
    min_p=st.sampled_from([0.0, 0.0, 0.03, 0.4, 1.0]),
    seed=st.integers(0, 2**63 - 1),
)
STEPS = st.sampled_from([0.0, 0.125, 1.0])  # between two logits; in steps of 1 there are many equal ones


def some_logits(rows: int, size: int, step: float, spread: float, seed: int) -> torch.Tensor:
    logits = spread * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    return (logits / step).round() * step if step else logits


@example(Draw(1.0, 200, 0.9), 300, 1.0, 1.2, 3, False)  # more are as likely as the 200th than are looked at first
@given(LEFT, st.integers(1, 400), STEPS, st.sampled_from([0.2, 1.0, 4.0]), st.integers(0, 999), st.booleans())
def test_tokens_that_are_left(draw: Draw, size: int, step: float, spread: float, seed: int, in_order: bool) -> None:
    """By the first tokens of the order, and by the order of all as on a device."""
    logits = some_logits(1, size, step, spread, seed)
    wanted = plainly(logits[0].tolist(), draw)
    with pytest.MonkeyPatch.context() as patch:
        if in_order:
            patch.setattr(filters, "_FIRST", size)
        got = weights(logits, logits.amax(-1, keepdim=True), [draw])[0].tolist()
    assert [token for token, value in enumerate(got) if value] == [token for token, value in enumerate(wanted) if value]
    assert got == pytest.approx(wanted, abs=1e-5)


@given(st.lists(LEFT | st.just(Draw()), min_size=1, max_size=9), st.randoms(), STEPS, st.integers(0, 999))
def test_a_row_is_drawn_the_same_alone_and_at_any_place_among_others(
    draws: list[Draw], random: Any, step: float, seed: int
) -> None:
    logits = some_logits(len(draws), 333, step, 2.0, seed)
    alone = [int(sample(logits[row : row + 1], [draw])) for row, draw in enumerate(draws)]
    assert sample(logits, draws).tolist() == alone
    order = list(range(len(draws)))
    random.shuffle(order)
    order = order[: random.randint(1, len(order))]
    assert sample(logits[order], [draws[row] for row in order]).tolist() == [alone[row] for row in order]


@pytest.mark.parametrize("step", [0.0, 1.0])
@pytest.mark.parametrize(
    "left", [{}, {"top_k": 90}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 200, "top_p": 0.9}], ids=str
)
def test_tokens_are_drawn_as_often_as_they_are_likely(left: dict[str, Any], step: float) -> None:
    """By the chi-squared test over all tokens, which lie in three blocks; the seeds are those of long replies."""
    count, logits = 40_000, some_logits(1, 300, step, 1.2, 3)
    wanted = torch.tensor(plainly(logits[0].tolist(), Draw(1.0, **left), near=0), dtype=torch.float64)
    wanted *= count / wanted.sum()
    drawn = torch.cat(
        [
            sample(logits.expand(4000, -1), [Draw(1.0, seed=seed_of(reply, token), **left) for token in range(4000)])
            for reply in range(count // 4000)
        ]
    )
    found = torch.bincount(drawn, minlength=300).double()
    assert found[wanted == 0].sum() == 0
    often = wanted >= 5  # the rare ones together are one more cell
    cells = [(found[often], wanted[often]), (found[~often].sum()[None], wanted[~often].sum()[None])]
    got, due = (torch.cat(part) for part in zip(*cells, strict=True))
    got, due = got[due > 0], due[due > 0]
    squared, free = float(((got - due) ** 2 / due).sum()), len(due) - 1
    # The normal approximation by Wilson and Hilferty: beyond 4 standard deviations once in 30,000 tests.
    assert abs((squared / free) ** (1 / 3) - (1 - 2 / (9 * free))) < 4 * math.sqrt(2 / (9 * free))


def test_two_draws_of_one_row_have_nothing_to_do_with_each_other() -> None:
    logits = torch.zeros(1, 256).expand(20_000, -1)
    now, next = (sample(logits, [Draw(1.0, seed=seed_of(5, at + place)) for at in range(20_000)]) for place in (0, 1))
    pairs = torch.bincount((now // 16) * 16 + next // 16, minlength=256).double()
    due = 20_000 / 256
    assert abs(float(((pairs - due) ** 2 / due).sum()) - 255) < 4 * math.sqrt(2 * 255)


def test_the_noise_of_a_place_never_changes() -> None:
    """Whoever gives a seed gets the same reply from the next version: these are SplitMix64's numbers."""
    logits = torch.linspace(-1, 1, 1000).expand(8, -1)
    draws = [Draw(1.0, seed=seed_of(7, index)) for index in range(8)]
    assert sample(logits, draws).tolist() == splitmix_draws(logits[0].tolist(), [draw.seed for draw in draws])


def splitmix_draws(logits: list[float], seeds: list[int]) -> list[int]:
    """Two draws by the Gumbel-max trick, with Python's whole numbers: of a block of 128 tokens, and of one of these."""

    def gumbel(seed: int, place: int) -> float:
        value = (seed + place * 0x9E3779B97F4A7C15) % 2**64
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        return -math.log(-math.log1p(-((value ^ (value >> 31)) >> 1) / 2**63))

    tokens = []
    for seed in seeds:
        starts = range(0, len(logits), 128)
        sums = [math.log(sum(math.exp(logit) for logit in logits[start : start + 128])) for start in starts]
        block = max(range(len(sums)), key=lambda at: sums[at] + gumbel(seed, 2**32 + at))
        inside = range(block * 128, min(len(logits), block * 128 + 128))
        tokens.append(max(inside, key=lambda id: logits[id] + gumbel(seed, id)))
    return tokens


VALUES = st.sampled_from([0.0, -1.0, 3.0, float("-inf"), float("inf"), float("nan")])


@given(st.lists(VALUES | st.floats(-9, 9, width=16), min_size=1, max_size=3 * BLOCK), st.sampled_from(["f", "b"]))
def test_the_best_is_the_first_of_the_largest(values: list[float], kind: str) -> None:
    row = torch.tensor([values, values[::-1]]).to(torch.bfloat16 if kind == "b" else torch.float32)
    assert best(row).tolist() == row.argmax(-1).tolist()


@given(st.integers(1, 9), st.integers(1, 4000), STEPS, st.integers(0, 999))
def test_the_largest_and_their_places(count: int, size: int, step: float, seed: int) -> None:
    values = some_logits(2, size, step, 1.0, seed)
    found, places = largest(values, count)
    assert torch.equal(found, values.topk(min(count, size)).values)
    assert torch.equal(values.gather(1, places), found)
    for row, chosen in zip(found.tolist(), places.tolist(), strict=True):
        assert list(zip(row, chosen, strict=True)) == sorted(
            zip(row, chosen, strict=True), key=lambda pair: (-pair[0], pair[1])
        )
        assert len(set(chosen)) == len(chosen)


def test_a_row_of_which_nothing_is_left_gives_no_token() -> None:
    every = Draw(barred=(0, 1, 2, 3, 4, 5))
    rows, draws = LOGITS.expand(3, -1), [every, Draw(1.0, barred=every.barred, top_p=0.5), Draw(barred=(0,))]
    assert sample(rows, draws).tolist() == [-1, -1, 1]


@given(st.floats(1e-45, 100), st.floats(0.01, 1), st.integers(0, 9))
def test_any_temperature_gives_a_token(temperature: float, top_p: float, seed: int) -> None:
    logits = 1e4 * some_logits(1, 50, 0.0, 1.0, seed)
    token = int(sample(logits, [Draw(temperature, top_p=top_p, seed=seed)]))
    assert 0 <= token < 50 and (temperature > 1 or token == int(logits.argmax()))


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
