"""Brook knows its world by whatever door a film comes: appended as a file or as frames, inside messages, from afar."""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

import pytest
from penstock import Engine, connect
from penstock.demos.brook import evaluate
from penstock.demos.brook.counted import Taken, sort_of
from penstock.demos.brook.doors import DOORS, House
from penstock.demos.brook.exam import Examiner, Paper
from penstock.demos.brook.film import encode
from penstock.demos.brook.sound import Bank

SEED = 5
GOAL = 0.9  # of the answers are right, by the card of the model


class Shown(NamedTuple):
    paper: Paper
    film: bytes


@pytest.fixture(scope="module")
def films(bank: Bank) -> list[Shown]:
    """Two films with a dozen questions: one to be shown in process, one from afar."""
    papers = [paper for paper in Examiner(SEED, bank, 1, False).papers() if len(paper.questions) > 5][:2]
    return [Shown(paper, encode(paper.scene, bank)) for paper in papers]


async def examined(house: House, door: str, films: list[Shown]) -> evaluate.Score:
    score = evaluate.Score()
    for paper, film in films:
        await evaluate.answer(house, door, paper, film, paper.scene.seconds, score, {})
    return score


def assert_right(score: evaluate.Score, films: list[Shown]) -> None:
    given = [answer for answers in score.answers.values() for answer in answers]
    assert len(given) == sum(len(paper.questions) for paper, _ in films) > 5
    wrong = [answer for answer in given if answer.given != answer.right]
    assert len(wrong) <= max(1, (1 - GOAL) * len(given)), wrong


@pytest.mark.parametrize("door", DOORS)
def test_films_are_answered_in_process(films: list[Shown], door: str) -> None:
    async def main() -> evaluate.Score:
        async with await Engine.load() as engine:
            return await examined(engine, door, films[1:])

    assert_right(asyncio.run(main()), films[1:])


@pytest.mark.parametrize("door", DOORS)
def test_films_are_answered_from_afar(server: str, films: list[Shown], door: str) -> None:
    async def main() -> evaluate.Score:
        async with connect(server) as connection:
            return await examined(connection, door, films[:1])

    assert_right(asyncio.run(main()), films[:1])


def test_a_film_is_answered_of_which_little_goes_in(bank: Bank) -> None:
    """Nothing changes in its pictures: most frames are left out, and what they show is known all the same."""
    papers = (paper for paper in Examiner(SEED, bank, 3, False).papers() if sort_of(paper.scene) == "still")
    paper = next(paper for paper in papers if len(paper.questions) > 3)
    film = Shown(paper, encode(paper.scene, bank))

    async def main() -> tuple[evaluate.Score, Taken]:
        score = evaluate.Score()
        async with await Engine.load() as engine:
            await evaluate.answer(engine, "frames", paper, film.film, paper.scene.seconds, score, {"drop_still": 60.0})
        return score, score.taken["still"]

    score, taken = asyncio.run(main())
    wrong = [one for answers in score.answers.values() for one in answers if one.given != one.right]
    assert len(wrong) <= 1 < 3 < len(taken.marks) == len(paper.questions), wrong
    pairs = int(paper.scene.seconds)
    assert taken.frames >= 2 * (pairs - 3)
    assert 0 < taken.line("still").rows < 16 + 12


def test_without_a_film_no_door_knows_more(films: list[Shown]) -> None:
    async def main() -> evaluate.Score:
        score = evaluate.Score()
        async with await Engine.load() as engine:
            for paper, _ in films:
                await evaluate.answer(engine, "messages", paper, None, 0.0, score, {})
        return score

    given = [answer for answers in asyncio.run(main()).answers.values() for answer in answers]
    assert sum(answer.given == answer.right for answer in given) < 0.6 * len(given)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("door", DOORS)
def test_every_kind_is_known_by_every_door(bank: Bank, door: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--door", door, "--seed", "5", "--count", "12", "--narrations", "0", "--json"]
    assert evaluate.main(command) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["door"] for line in lines} == {door}
    right = sum(line["right"] * line["n"] for line in lines) / sum(line["n"] for line in lines)
    assert right > GOAL, lines
