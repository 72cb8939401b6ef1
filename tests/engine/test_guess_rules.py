"""The parts of guessing alone: what is said behind guesses, what is looked up, what is worth its time."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.conversation.reply import ReplyState
from penstock.engine.guessing.chance import Chance
from penstock.engine.guessing.lookup import continued
from penstock.engine.pages import PagePool, PageTable
from penstock.engine.plan import Draw, Feed, Guesses
from penstock.engine.positions import Cursor
from penstock.engine.runner.guesses import drawn_rows, laid_behind, result
from penstock.engine.runner.sampler import sample, seed_of
from penstock.engine.scheduling.pace import GuessPace
from penstock.engine.span import Rows
from penstock.engine.words.detokenize import Detokenizer
from penstock.streams.requests.request import Sampling, SamplingParams

from tests.fixtures.loaded import plain

# The model's logits at the first place, and at the second by the first token; those of a draft model.
FIRST = torch.tensor([1.0, 0.4, -0.3, 0.0])
SECOND = torch.tensor([[0.2, 1.1, 0.0, -1.0], [1.5, -0.5, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0], [-1.0, 0.7, 0.7, 0.2]])
DRAFT = torch.tensor([0.2, 0.9, 0.1, -0.4])
SEEDS = 4000
NOWHERE = np.zeros((3, 1), dtype=np.int64)


@pytest.mark.parametrize("guess", ["one of them", "drawn by a draft model", "drawn by chance"])
def test_two_tokens_have_the_models_distribution(guess: str) -> None:
    """Chi-square over many seeds, whatever the guess depends on; and each seed says what it says without guesses."""
    draws = [[Draw(1.0, seed=seed_of(seed, place)) for place in range(2)] for seed in range(SEEDS)]
    first, second = ([pair[place] for pair in draws] for place in range(2))
    without = sample(FIRST.expand(SEEDS, -1), first)
    behind = sample(SECOND[without], second).tolist()
    match guess:
        case "one of them":
            ids = torch.ones_like(without)
        case "drawn by a draft model":
            ids = sample(DRAFT.expand(SEEDS, -1), first)
        case _:
            ids = torch.randint(4, without.shape, generator=torch.Generator().manual_seed(0))
    with_guess = sample(SECOND[ids], second).tolist()
    counts, right = torch.zeros(4, 4), 0
    for seed, id in enumerate(ids.tolist()):
        feed = Feed(
            1, 0, 0, [Rows(np.array([0]), NOWHERE)], first[seed], guesses=Guesses(NOWHERE, [second[seed]], (id,))
        )
        said = result(1, [laid_behind(feed)], [int(without[seed]), with_guess[seed]], [], []).tokens
        right += len(said) - 1
        if len(said) == 1:  # the guess was wrong: the next step draws behind what was said
            said.append(behind[seed])
        assert said == [int(without[seed]), behind[seed]]
        counts[said[0], said[1]] += 1
    expected = SEEDS * FIRST.softmax(0)[:, None] * SECOND.softmax(1)
    assert float(((counts - expected) ** 2 / expected).sum()) < 37.7  # 15 degrees of freedom, one in a thousand
    assert right > SEEDS * (0.5 if guess == "drawn by a draft model" else 0.2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3), st.booleans())
def test_a_step_says_all_up_to_the_first_wrong_guess(places: list[tuple[int, int]], poisoned: bool) -> None:
    """`places`: of each feed how many guesses it has, and how many of them are right. A draw that is not finite behind
    a wrong guess is nobody's."""
    feeds, tokens, said, lost = [], list[int](), list[list[int]](), list[int]()
    for stream, (guesses, right) in enumerate(places):
        right = min(guesses, right)
        drawn = [10 * stream + place for place in range(guesses + 1)]
        ids = tuple(token if place < right else 99 for place, token in enumerate(drawn[:guesses]))
        feed = Feed(stream, 0, 0, [Rows(np.array([0]), NOWHERE)], Draw())
        if guesses:
            positions = np.zeros((3, guesses), dtype=np.int64)
            feed = laid_behind(
                Feed(stream, 0, 0, feed.rows, Draw(), guesses=Guesses(positions, [Draw()] * guesses, ids))
            )
        if poisoned:
            drawn[-1] = -1
        feeds.append(feed)
        tokens += drawn
        lost += [stream] if poisoned and right == guesses else []
        said += [] if poisoned and right == guesses else [drawn[: right + 1]]
    told = result(1, feeds, tokens, [], [])
    assert [[id for id, _ in part] for part in told.drawn()] == said
    assert told.poisoned == lost
    assert drawn_rows(feeds)[0] == list(range(len(tokens)))


@given(st.lists(st.sampled_from([-1, 0, 1, 2]), max_size=40), st.integers(1, 6))
def test_what_followed_before(ids: list[int], most: int) -> None:
    """By the definition: the newest place of the longest part that stood before, and what followed it there."""
    assert continued(np.array(ids, dtype=np.int64), most) == by_definition(ids, most)


def by_definition(ids: list[int], most: int) -> tuple[int, ...]:
    for same in (4, 3, 2):
        end = ids[-same:]
        for start in range(len(ids) - same - 1, -1, -1):
            if -1 not in end and ids[start : start + same] == end:
                whole = list(ids)
                while len(whole) < len(ids) + most and whole[start + same + len(whole) - len(ids)] != -1:
                    whole.append(whole[start + same + len(whole) - len(ids)])
                return tuple(whole[len(ids) :])
    return ()


def guesses_of(chance: Chance, right: float, cost: float, steps: int) -> list[int]:
    """How many guesses each step has, of which each is right with this chance."""
    draw, made = random.Random(1), []
    for _ in range(steps):
        count = chance.worth(4, cost)
        made.append(count)
        if count:
            so_far = 0
            while so_far < count and draw.random() < right:
                so_far += 1
            chance.learn(so_far, count)
    return made


@pytest.mark.parametrize(
    ("right", "cost", "expected"),
    [(1.0, 0.1, 4), (0.9, 0.1, 4), (0.6, 0.3, 2), (0.3, 0.1, 1), (0.05, 0.1, 0), (0.0, 0.02, 0), (0.6, 0.9, 0)],
)
def test_as_many_guesses_as_are_worth_it(right: float, cost: float, expected: int) -> None:
    """A guess is worth it while it is likelier to be reached and right than what it costs; that gains most tokens."""
    made = guesses_of(Chance(), right, cost, 3000)[1000:]
    assert sum(made) / len(made) == pytest.approx(expected, abs=0.5)
    gains = [sum(right**place for place in range(1, count + 1)) - count * cost for count in range(5)]
    assert max(gains) - gains[expected] < 0.1


def test_guesses_are_tried_again(right: float = 0.95) -> None:
    """After a pause, longer each time; and what has become worth it is found again."""
    chance = Chance()
    made = guesses_of(chance, 0.0, 0.1, 1500)
    assert 0 < sum(count > 0 for count in made[500:]) < 30
    assert sum(guesses_of(chance, right, 0.1, 1000)[600:]) > 1200


def test_what_a_guess_costs_is_measured() -> None:
    pace = GuessPace()
    assert pace.cost is None
    pace.took(1, 4, 50.0)  # nothing to compare it with
    assert pace.cost is None
    for ms in (10.0, 10.0, 90.0, 10.0):
        pace.took(1, 0, ms)
    pace.took(2, 0, 20.0)
    pace.took(1, 4, 12.0)
    assert pace.cost == 0.05
    for _ in range(8):
        pace.took(2, 5, 40.0)
    assert pace.cost == 0.2
    for _ in range(8):
        pace.took(2, 5, 19.0)
    assert pace.cost == 0.02  # by chance it was quicker


@given(
    rows=st.integers(1, 40), guesses=st.integers(1, 9), right=st.integers(0, 9), page_tokens=st.sampled_from([1, 4, 16])
)
def test_pages_of_guesses_go_back(rows: int, guesses: int, right: int, page_tokens: int) -> None:
    pool = PagePool(64, page_tokens)
    table = PageTable(pool)
    table.append(rows)
    before = list(table.pages)
    edit = table.reserve(guesses)
    assert table.length == rows and len(table.pages) * page_tokens >= rows + guesses
    assert table.pages[edit.index :] == edit.pages and table.pages[: edit.index] == before
    for _ in range(min(right, guesses)):
        assert not table.append(1).pages
    table.trim()
    assert len(table.pages) == -(-table.length // page_tokens)
    pool.check([table])


def test_penalties_know_the_guesses() -> None:
    behind: Any = [Draw(said=(5,)), Draw(said=(5,)), Draw()]
    positions = np.zeros((3, 3), dtype=np.int64)
    feed = Feed(1, 0, 0, [Rows(np.array([0]), NOWHERE)], Draw(said=(5,)), guesses=Guesses(positions, behind, (7, 8, 9)))
    _, draws = drawn_rows([laid_behind(feed)])
    assert [draw.said for draw in draws] == [(5,), (5, 7), (5, 7, 8), ()]


@given(
    said=st.lists(st.integers(0, 9), max_size=6),
    more=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    least=st.integers(0, 12),
    repetition=st.sampled_from([1.0, 1.3]),
)
def test_a_later_token_is_drawn_as_it_will_be(said: list[int], more: list[int], least: int, repetition: float) -> None:
    """But for what was said between, which `laid_behind` adds."""
    params = SamplingParams(
        temperature=0.8, seed=3, min_tokens=least, repetition_penalty=repetition, stop_token_ids=(11,)
    )
    ends, text = frozenset([12]), Detokenizer(plain("text")[1], ())
    reply = ReplyState(1, 1, params, text, 0, Cursor(), ends, Sampling())
    reply.ids = list(said)
    ahead = reply.draw(len(more))
    reply.ids += more
    assert msgspec.structs.replace(ahead, said=()) == msgspec.structs.replace(reply.draw(), said=())
    assert ahead.said == (tuple(said) if repetition != 1 else ())
