"""Questions and their answers against a slow reading of the same scene."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.demos.brook import foreign
from penstock.demos.brook.moment import Moment
from penstock.demos.brook.narration import UNKNOWN
from penstock.demos.brook.questions import KINDS, ask
from penstock.demos.brook.world import COLOURS, NUMBERS, PLACES, SHAPES, WORDS, Scene, SceneMaker, Wish

seeds = st.integers(0, 2**32 - 1)
WORD_SECONDS = {word: [0.4] for word in (*WORDS, "other")}


def moment(seed: int, **wish: object) -> Moment:
    random = np.random.default_rng(seed)
    scene = SceneMaker(random, WORD_SECONDS).scene(Wish(seconds=10.0, **wish))  # pyright: ignore
    return Moment(scene, scene.seconds, scene.seconds, random)


def names(scene: Scene) -> list[tuple[str, str, str]]:
    """Colour, shape and place of what is there at the end, by following the script by hand."""
    there = {thing.number: thing for thing in scene.things}
    for change in scene.changes:
        there[change.after.number] = change.after
        if change.kind == "left":
            del there[change.after.number]
    ordered = sorted(there.values(), key=lambda thing: (round(thing.place // 3), thing.place % 3))
    return [(thing.colour, thing.shape, PLACES[thing.place]) for thing in ordered]


@given(seeds)
def test_what(seed: int):
    now = moment(seed)
    question = ask("what", now)
    assert question is not None
    told = [part for piece in question.answer[:-1].split(", ") for part in piece.split(" and ")]
    expected = [f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}" for colour, shape, _ in names(now.scene)]
    assert told == (expected or ["nothing"])


@given(seeds)
def test_answers_name_the_one_thing_that_fits(seed: int):
    now = moment(seed)
    there = names(now.scene)
    for kind in ("colour", "shape", "where"):
        question = ask(kind, now)
        assert question is not None
        wanted = set(re.findall(r"\w+", question.text)) & {*SHAPES, *COLOURS}
        fitting = [thing for thing in there if wanted <= set(thing)]
        if question.answer.startswith("there is no"):
            assert not fitting
        else:
            assert len(fitting) == 1
            index = {"colour": 0, "shape": 1, "where": 2}[kind]
            assert question.answer == f"{fitting[0][index]}."


@given(seeds)
def test_counts(seed: int):
    now = moment(seed, beeps=0.8, sound_gap=0.8)
    question, beeps = ask("count", now), ask("beeps", now)
    assert question is not None
    if any(word in question.text for word in ("things", "shapes", "objects")) and not any(
        word in question.text for word in (*COLOURS, "small", "large")
    ):
        assert question.answer == f"{NUMBERS[len(names(now.scene))]}."
    if beeps is not None:
        fitting = [
            s
            for s in now.scene.sounds
            if s.kind == "beep"
            and (s.value in beeps.text.split() or "high" not in beeps.text and "low" not in beeps.text)
        ]
        assert beeps.answer == f"{NUMBERS[len(fitting)]}."


@given(seeds)
def test_last_word_and_last_change(seed: int):
    now = moment(seed, beeps=0.3)
    word, changed = ask("word", now), ask("changed", now)
    assert word is not None and changed is not None
    words = [sound.value for sound in now.scene.sounds if sound.kind == "word"]
    assert word.answer == (f"{words[-1]}." if words else "nothing.")
    if not now.scene.changes:
        assert changed.answer == "nothing changed."
    else:
        assert now.scene.changes[-1].before.name in changed.answer


@given(seeds)
def test_foreign_media_and_questions_are_not_known(seed: int):
    now = moment(seed, foreign="noise")
    for kind in ("what", "colour", "count"):
        question = ask(kind, now)
        assert question is None or question.answer == UNKNOWN
    question = ask("unknown", now)
    assert question is not None and question.answer == UNKNOWN


@given(seeds)
def test_of_what_happened_all_at_once_it_is_not_asked_which_it_was(seed: int):
    now = moment(seed, cut=1.0)
    last, (cut,) = now.scene.changes[-1], now.scene.cuts
    assert (ask("changed", now) is None) == (last.time == cut)
    gone = [change for change in now.scene.changes if change.kind == "left"]
    assert (ask("left", now) is None) == (bool(gone) and gone[-1].time == cut)


@given(seeds, st.sampled_from(("what", "colour", "count", "is there", "changed", "start", "first", "nothing")))
def test_foreign_pictures_before_or_behind_a_cut_are_not_known(seed: int, kind: str):
    now = moment(seed, foreign="texture", cut=1.0)
    foreign = now.scene.foreign_at(now.scene.seconds)
    question = ask(kind, now)
    if question is None:
        return
    assert kind not in ("changed", "start", "first")
    if kind == "nothing":
        assert not now.sounds or not (foreign or now.things)
    else:
        assert (question.answer == UNKNOWN) == bool(foreign)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_asked_in_varied_words(kind: str):
    asked = [question for seed in range(150) if (question := ask(kind, moment(seed))) is not None]
    assert len(asked) >= 10
    assert len({question.text for question in asked}) >= 4
    if kind != "unknown":
        assert all(question.answer != UNKNOWN for question in asked)


def test_evaluation_has_foreign_words_of_its_own():
    assert not set(foreign.spoken(0)) & set(foreign.spoken(1))
    random = np.random.default_rng(0)
    training = {foreign.question(random, 0) for _ in range(5000)}
    evaluation = {foreign.question(random, 1) for _ in range(500)}
    assert not training & evaluation


@given(seeds)
def test_nothing_is_known_of_pictures_that_were_not_shown(seed: int):
    random = np.random.default_rng(seed)
    scene = SceneMaker(random, WORD_SECONDS).scene(Wish(seconds=10.0))
    blind = Moment(scene, None, scene.seconds, random)
    for kind in set(KINDS) - {"unknown"}:
        question = ask(kind, blind)
        if question is not None:
            named = set(re.findall(r"\w+", question.answer)) & set(SHAPES)
            assert named <= set(re.findall(r"\w+", question.text)), question
