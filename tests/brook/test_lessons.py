"""Lessons: what a stream has been shown when it is made to say something."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.demos.brook.checkpoint import build_tokenizer
from penstock.demos.brook.layout import IGNORED, Vocabulary
from penstock.demos.brook.lessons import NARRATE, Lesson, LessonMaker, LessonPiece, LessonPlan, cut
from penstock.demos.brook.sound import Bank
from penstock.demos.brook.world import Change, Scene, Thing

times = st.lists(st.floats(0.0, 6.9).map(lambda time: round(time, 2)), max_size=4, unique=True).map(sorted)


@given(times, st.booleans(), st.booleans(), st.floats(3.0, 7.0))
def test_pieces_tile_the_stream(asks: list[float], video: bool, audio: bool, seconds: float):
    asks = [time for time in asks if time < seconds]
    steps = list(cut(LessonPlan(seconds, video, audio, False, asks)))
    assert [step for step in steps if isinstance(step, float)] == asks
    pieces = [step for step in steps if isinstance(step, LessonPiece)]
    ticks = [tick for piece in pieces if piece.kind == "video" for tick in dict.fromkeys((piece.start, piece.stop))]
    assert ticks == [number * 0.5 for number in range(len(ticks))]
    assert not ticks or video
    sounds = [piece for piece in pieces if piece.kind == "audio"]
    assert not sounds or audio
    for before, after in pairwise(sounds):
        assert after.start == pytest.approx(before.stop)
        assert after.run == before.run + before.forced
    for piece in sounds:
        assert piece.forced or piece.stop - piece.start == pytest.approx(1.0)


@given(times)
def test_nothing_is_asked_before_it_is_shown(asks: list[float]):
    shown = 0.0
    for step in cut(LessonPlan(7.0, True, True, False, asks)):
        if isinstance(step, LessonPiece):
            if step.kind == "video":
                shown = max(shown, step.stop)
        elif step >= 0.0:
            assert shown <= step
            assert shown >= np.floor(step * 2) / 2


WORDS = build_tokenizer(["which way did the circle move? it did not move. up. down. left. right."])


@pytest.fixture(scope="module")
def lessons(bank: Bank) -> list[Lesson]:
    maker = LessonMaker(np.random.default_rng(3), bank, Vocabulary(WORDS))
    return [maker.lesson(8.0) for _ in range(150)]


def newest(lesson: Lesson, row: int) -> tuple[str, int]:
    """Kind and number of the last piece of media up to a row."""
    return max((first, kind, piece) for first, kind, piece in lesson.rows.media if first <= row)[1:]


def test_which_way_is_asked_of_what_moved_and_of_what_stood_still_meanwhile(lessons: list[Lesson]):
    answers: Counter[tuple[bool, bool]] = Counter()
    for lesson in lessons:
        for kind, first, stop in lesson.rows.said:
            if kind == "way":
                pairs = [piece for row, media, piece in lesson.rows.media if media == "video" and row < first]
                seen = lesson.scene.changes_until(lesson.pairs[pairs[-1]][1])
                moved = any(change.kind == "moved" for change in seen)
                still = "did not" in WORDS.decode(lesson.rows.labels[first:stop])
                answers[moved, still] += 1
    assert answers[True, True] + answers[True, False] > answers[False, True] > 0
    assert min(answers[True, True], answers[True, False]) > answers.total() / 10
    assert not answers[False, False]


def test_hard_kinds_are_asked_more_often_the_more_so_is_wished(bank: Bank):
    def share(hard: float) -> float:
        maker = LessonMaker(np.random.default_rng(4), bank, Vocabulary(WORDS), hard)
        said = [kind for _ in range(25) for kind, _, _ in maker.lesson(5.0).rows.said]
        return sum(kind in ("together", "count", "way", "before") for kind in said) / len(said)

    assert 1.5 * share(0.0) < 1.2 * share(0.5) < share(1.0)


def test_a_sound_that_goes_on_is_waited_for(lessons: list[Lesson]):
    waited = 0
    for lesson in lessons:
        for said, first, _ in lesson.rows.said:
            if said != "kept":
                continue
            kind, piece = newest(lesson, first)
            stop = lesson.blocks[piece][0] + 1.0
            assert kind == "audio" and any(sound.start < stop < sound.stop for sound in lesson.scene.sounds)
            waited += 1
    assert waited > 10


def film_with_a_cut() -> Scene:
    one = Thing(0, "circle", "red", "large", 0.15, 0.5, 0.5, 4)
    two = Thing(1, "star", "blue", "small", 0.1, 1 / 6, 1 / 6, 0)
    three = Thing(2, "ring", "pink", "small", 0.1, 5 / 6, 5 / 6, 8)
    gone = Change("left", 3.2, 3.2, one, one)
    return Scene(0, 8.0, (one,), (gone, *(Change("came", 3.2, 3.2, t, t) for t in (two, three))), (), "", (3.2,))


@pytest.mark.parametrize("stop", [math.inf, 3.2])
def test_behind_a_cut_narration_begins_again_with_what_is_there(bank: Bank, stop: float):
    asks = [-0.05] if stop == math.inf else [-0.05, 4.1]
    maker = LessonMaker(np.random.default_rng(5), bank, Vocabulary(WORDS))
    whole = 0
    for _ in range(30):
        lesson = maker._lesson(film_with_a_cut(), LessonPlan(8.0, True, False, True, asks, stop))
        narrated = [(first, end) for kind, first, end in lesson.rows.said if kind == "narrated"]
        labels = [id for first, end in narrated for id in lesson.rows.labels[first:end] if id != IGNORED]
        told = WORDS.decode(labels, skip_special_tokens=True)
        assert "left" not in told and "came" not in told
        if sum(WORDS.decode(lesson.rows.ids).count(request) for request in NARRATE) == len(asks):
            assert told.strip().startswith("I see a red") and told.endswith("I see a blue star and a pink ring.")
            whole += 1
    assert whole > 10


def test_who_interrupts_hears_nothing_until_the_next_question(bank: Bank):
    maker = LessonMaker(np.random.default_rng(6), bank, Vocabulary(WORDS))
    for _ in range(10):
        lesson = maker._lesson(film_with_a_cut(), LessonPlan(8.0, True, False, True, [-0.05], 3.2))
        pairs = [first for first, _, piece in lesson.rows.media if lesson.pairs[piece][1] > 3.2]
        assert all(first < pairs[0] for _, first, _ in lesson.rows.said)
        assert "user" in WORDS.decode(lesson.rows.ids[pairs[0] - 8 : pairs[0]])
