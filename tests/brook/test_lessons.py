"""Lessons: what a stream has been shown when it is made to say something."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.demos.brook.checkpoint import build_tokenizer
from penstock.demos.brook.layout import Vocabulary
from penstock.demos.brook.lessons import Lesson, LessonMaker, Piece, Plan, cut
from penstock.demos.brook.sound import Bank

times = st.lists(st.floats(0.0, 6.9).map(lambda time: round(time, 2)), max_size=4, unique=True).map(sorted)


@given(times, st.booleans(), st.booleans(), st.floats(3.0, 7.0))
def test_pieces_tile_the_stream(asks: list[float], video: bool, audio: bool, seconds: float):
    asks = [time for time in asks if time < seconds]
    steps = list(cut(Plan(seconds, video, audio, False, asks)))
    assert [step for step in steps if isinstance(step, float)] == asks
    pieces = [step for step in steps if isinstance(step, Piece)]
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
    for step in cut(Plan(7.0, True, True, False, asks)):
        if isinstance(step, Piece):
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
