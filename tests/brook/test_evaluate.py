"""The examination, against a real server that serves Brook."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from penstock.demos import brook
from penstock.demos.brook import evaluate
from penstock.demos.brook.draw import Lens
from penstock.demos.brook.evaluate import Given, Score
from penstock.demos.brook.exam import FOREIGN, HELD_OUT, STRANGE, Paper
from penstock.demos.brook.marking import Sentence
from penstock.demos.brook.questions import KINDS, BrookQuestion
from penstock.demos.brook.sound import Bank
from penstock.demos.brook.world import Scene


class Film(NamedTuple):
    """What would be filmed, and by which camera."""

    scene: Scene
    camera: Lens | None


class Shown(NamedTuple):
    """A paper with what is shown for it: the film, and how many seconds of it."""

    paper: Paper
    film: Film | None
    seconds: float


# Takes the examination by a server's URL and options; gives the lines of the table by their kinds.
Examined = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bank: Bank) -> Examined:
    """Runs the command, with few voices."""
    monkeypatch.setattr(evaluate, "evaluation_bank", lambda seed: bank)

    def run(url: str, *options: str) -> dict[str, dict[str, Any]]:
        code = evaluate.main(["--url", url, "--json", "--seed", "3", *options])
        told = capsys.readouterr()
        assert (code, told.err) == (0, "")
        return {line["kind"]: line for line in map(json.loads, told.out.splitlines())}

    return run


def test_it_needs_neither_torch_nor_transformers() -> None:
    check = (
        "import sys, penstock.demos.brook.evaluate\n"
        "known = {'penstock.engine', 'penstock.engine.config'}\n"
        "engine = {name for name in sys.modules if name.startswith('penstock.engine')}\n"
        "assert engine <= known and not {'torch', 'transformers'} & set(sys.modules), engine"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_only_the_opening_of_a_narration_is_excused_from_what_is_invented() -> None:
    score = Score()
    said = [Sentence("I see nothing.", 1, 1.0), Sentence("I see a red circle.", 1, 3.0)]
    evaluate._mark(Scene(1, 6.0, (), (), ()), said, score)
    opening = Given("", "I see nothing.", "I see nothing.")
    assert score.invented == [True] and score.answers["narration: opening"] == [opening]


def test_the_constant_answer_fits_what_the_wording_asks_for() -> None:
    """Who sees nothing still knows that a question wants yes or no."""
    sure = [Given("Did they say so?", "no.", "", "said things")] * 2
    shapes = [Given("Which shape?", answer, "", "said") for answer in ("none.", "circle.", "none.")]
    assert evaluate.constant(sure + shapes) == 4 / 5
    held_out = [Given("How many?", "one.", "", "count"), Given("Is there?", "no.", "", "is there")]
    assert evaluate.constant(held_out) == 1
    twice = [Given("", f"there is no {name}.", "") for name in ("star", "ring")]
    assert evaluate.constant([*twice, Given("", "yes.", "")]) == 2 / 3


def test_of_a_sound_and_a_thing_the_wording_tells_which_was_first() -> None:
    asked = [("the word or the cross", "the word."), ("the beep or the ring", "the beep.")] * 2
    asked += [("the word or the beep", "the word."), ("the word or the beep", "the beep.")]
    given = [
        Given(text, right, "", evaluate.wanted(BrookQuestion("first", f"Was {text} first?", right)))
        for text, right in asked
    ]
    assert evaluate.constant(given) == 5 / 6


@pytest.mark.parametrize("file", sorted(Path(brook.__file__).parent.glob("*.py")), ids=lambda file: file.name)
def test_brooks_world_and_training_know_no_engine(file: Path) -> None:
    assert not re.search(r"^\s*(from|import) .*\bengine\b", file.read_text(), re.MULTILINE)


def share(lines: dict[str, dict[str, Any]], column: str) -> float:
    """What this column says of all kinds of questions on average."""
    return sum(lines[kind][column] for kind in KINDS) / len(KINDS)


def assert_right(lines: dict[str, dict[str, Any]], narrated: int) -> None:
    """Every kind was asked, and Brook knows its world, in films of which each was cut."""
    for kind in (*KINDS, FOREIGN, STRANGE, HELD_OUT, "narration: invented"):
        assert lines[kind]["n"], kind
    assert share(lines, "right") > max(0.85, share(lines, "constant") + 0.3)
    assert lines["narrated: cut"]["n"] == narrated
    assert lines["narrated: cut"]["right"] > 0.4
    assert lines["narrated: all"]["right"] > 0.5
    assert lines["narration: invented"]["right"] < 0.4


def test_every_kind_is_examined_and_brook_is_right(server: str, examined: Examined) -> None:
    """The goal is stricter (MODEL_CARD.md); here few are asked of each kind, on a machine that may be busy."""
    lines = examined(server, "--count", "2", "--hold-out", "--narrations", "2", "--cuts", "--pace", "4")
    assert_right(lines, 2)


@pytest.mark.slow
def test_brook_is_right_where_more_is_asked(server: str, examined: Examined) -> None:
    lines = examined(server, "--count", "6", "--hold-out", "--narrations", "8", "--cuts", "--pace", "2")
    assert_right(lines, 8)


def test_without_its_media_a_question_is_not_answered(server: str, examined: Examined) -> None:
    lines = examined(server, "--count", "4", "--media", "none")
    for kind in ("what", "where", "colour", "words", "start"):
        assert lines[kind]["right"] <= lines[kind]["constant"] + 0.25
    assert "narrated: all" not in lines


@pytest.mark.slow
@pytest.mark.parametrize("media", ["other", "blank"])
def test_with_another_film_it_is_examined_too(server: str, examined: Examined, media: str) -> None:
    assert share(examined(server, "--count", "2", "--media", media), "right") < 0.75


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, bank: Bank) -> Callable[..., list[Shown]]:
    """Holds an examination, with these options, in which nobody answers; gives what was to be shown."""
    taken: list[Shown] = []

    async def ask(
        house: Any, door: str, paper: Paper, film: Film | None, seconds: float, score: Score, still: float | None
    ) -> None:
        taken.append(Shown(paper, film, seconds))

    async def narrate(house: Any, paper: Paper, film: Film, pace: float, score: Score) -> None:
        taken.append(Shown(paper, film, film.scene.seconds))

    monkeypatch.setattr(evaluate, "encode", lambda scene, bank, container, camera: Film(scene, camera))
    monkeypatch.setattr(evaluate, "answer", ask)
    monkeypatch.setattr(evaluate, "narrate", narrate)
    monkeypatch.setattr(evaluate, "connect", lambda url: nullcontext())
    monkeypatch.setattr(evaluate, "evaluation_bank", lambda seed: bank)

    def run(*options: str) -> list[Shown]:
        taken.clear()
        command = ["--url", "ws://127.0.0.1:9", "--count", "2", "--narrations", "2", *options]
        asyncio.run(evaluate.examine(evaluate._parser().parse_args(command), Score()))
        return list(taken)

    return run


def test_a_film_is_the_one_that_is_asked_about_or_another_or_a_blank_one_or_none(
    shown: Callable[..., list[Shown]],
) -> None:
    asked = shown()
    scenes = [one.paper.scene for one in asked]
    assert len(scenes) > 4 and all(one.film and one.film.scene == one.paper.scene for one in asked)
    papers = [one.paper for one in asked if one.paper.questions]
    for one in (others := shown("--media", "other")):
        assert one.film and one.film.scene in scenes and one.film.scene != one.paper.scene
        assert one.seconds == one.film.scene.seconds
    for one in (blank := shown("--media", "blank")):
        assert one.film and one.seconds == one.film.scene.seconds == one.paper.scene.seconds
        for time in np.arange(0, one.seconds, 0.25).tolist():
            assert not one.film.scene.at(time) and not one.film.scene.foreign_at(time)
        assert not one.film.scene.sounds
    none = shown("--media", "none")
    assert all((one.film, one.seconds) == (None, 0.0) for one in none)
    for column in (others, blank, none):  # all questions, and no narration, which no other film has
        assert sorted(map(repr, papers)) == sorted(repr(one.paper) for one in column)


def test_cameras_take_the_films_where_they_are_asked_for(shown: Callable[..., list[Shown]]) -> None:
    def cameras(*options: str) -> list[Lens | None]:
        return [one.film.camera for one in shown(*options) if one.film]

    films = len(plain := cameras())
    assert films > 4 and set(plain) == {None}
    taken = cameras("--camera")
    assert len(taken) == films and None not in taken and len(set(taken)) > 2


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], examined: Examined) -> None:
    assert evaluate.main(["--url", "ws://127.0.0.1:9", "--count", "1"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("evaluate: error:") and told.err.count("\n") == 1
