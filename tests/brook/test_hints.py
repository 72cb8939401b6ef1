"""Hints say of each row what a watcher would know there."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from penstock.demos.brook import world
from penstock.demos.brook.hints import EVENTS, SIZES, HintHeads, hints
from penstock.demos.brook.layout import Vocabulary
from penstock.demos.brook.lessons import Lesson, LessonMaker, LessonPlan
from penstock.demos.brook.senses import FIELDS
from penstock.demos.brook.sound import RATE, Bank
from penstock.demos.brook.world import COLOURS, SHAPES, WAYS, WORDS, Change, Scene, Sound, Thing

COLUMN = {name: number for number, name in enumerate(SIZES)}


def thing(number: int, shape: str, colour: str, x: float, y: float, place: int) -> Thing:
    return Thing(number, shape, colour, "small", 0.09, x, y, place)


@cache
def tokenizer() -> Any:
    from penstock.demos.brook.checkpoint import build_tokenizer
    from penstock.demos.brook.words import sentences

    return build_tokenizer(sentences(scenes=200))


def lesson(scene: Scene, seed: int = 0) -> Lesson:
    bank = Bank((), half=0)
    bank.clips = dict.fromkeys(bank.clips, [np.zeros(RATE // 4, np.float32)])
    maker = LessonMaker(np.random.default_rng(seed), bank, Vocabulary(tokenizer()))
    return maker._lesson(scene, LessonPlan(scene.seconds, True, True, False, [scene.seconds - 0.001]))


def fields(made: Lesson, labels: np.ndarray, name: str) -> list[dict[int, int]]:
    """For each pair: the fields whose label in this column says something."""
    firsts = [first for first, kind, _ in made.rows.media if kind == "video"]
    columns = [labels[first : first + FIELDS * FIELDS, COLUMN[name]] for first in firsts]
    return [{int(field): int(column[field]) for field in np.flatnonzero(column > 0)} for column in columns]


def test_what_happens_is_told_in_the_field_where_it_happens() -> None:
    ring = thing(0, "ring", "red", 0.17, 0.17, 0)
    star = thing(1, "star", "blue", 0.83, 0.83, 8)
    blue = ring._replace(colour="blue")
    right = blue._replace(x=0.83, place=2)
    changes = (
        Change("turned", 1.1, 1.1, ring, blue),
        Change("came", 2.2, 2.2, star, star),
        Change("moved", 3.0, 3.4, blue, right, "right"),
        Change("left", 4.2, 4.2, star, star),
    )
    made = lesson(Scene(1, 6.0, (ring,), changes, ()))
    labels = hints(made)
    named = [{field: EVENTS[kind] for field, kind in pair.items()} for pair in fields(made, labels, "event")]
    # Pairs end at 0.5, 1.5, 2.5, ... s.
    assert named[:5] == [{}, {0: "turned"}, {15: "came"}, {3: "moved right"}, {15: "left"}]
    red = COLOURS.index("red") + 1
    assert fields(made, labels, "colour before")[:4] == [{}, {0: red}, {0: red}, {3: red}]
    assert fields(made, labels, "way")[:5] == [{}, {}, {}, {3: list(WAYS).index("right") + 1}] + [{3: 2}]
    gone = labels[labels[:, COLUMN["shape gone"]] >= 0]
    assert gone[:, [COLUMN["shape gone"], COLUMN["colour gone"]]].tolist() == [
        [SHAPES.index("star"), COLOURS.index("blue")]
    ]
    counts = [set(pair.values()) for pair in fields(made, labels, "things")]
    assert counts[:5] == [{1}, {1}, {2}, {2}, {1}]


def test_sounds_are_counted_where_they_end() -> None:
    beeps = ("high", 0.2, 0.4), ("low", 0.9, 1.1), ("high", 2.0, 2.2)
    sounds = tuple(Sound("beep", pitch, start, stop, 3) for pitch, start, stop in beeps)
    made = lesson(Scene(1, 4.0, (), (), sounds))
    labels = hints(made)
    rows = [row for first, kind, _ in made.rows.media if kind == "audio" for row in range(first, first + 12)][:36]
    for name, many in (("beeps", [0, 1, 2, 3]), ("high", [0, 1, 2]), ("low", [0, 1]), ("words", [0])):
        counted = labels[rows, COLUMN[name]]
        assert (np.diff(counted) >= 0).all()
        assert np.unique(counted).tolist() == many
    # The second beep ends 0.1 s into the second block.
    assert labels[rows[:16], COLUMN["beeps"]].tolist()[-5:] == [1, 2, 2, 2, 2]


def test_rows_without_labels_do_not_count() -> None:
    heads = HintHeads(8)
    labels = torch.full((1, 4, len(SIZES)), -100)
    labels[0, 1, COLUMN["beeps"]] = 2
    rows = torch.randn(1, 4, 8)
    other = rows.clone()
    other[0, [0, 2, 3]] += 1
    assert heads.loss(rows, rows, rows, labels) == heads.loss(other, other, other, labels)
    assert heads.loss(rows, rows, rows, labels) != heads.loss(rows, rows, other + 1, labels)


def test_an_answer_hangs_on_the_pair_that_was_there_when_something_was_heard() -> None:
    ring = thing(0, "ring", "red", 0.17, 0.17, 0)
    made = lesson(Scene(1, 6.0, (ring,), (), (Sound("beep", "high", 2.2, 2.4, 3),)))
    labels = hints(made)
    counts = [set(labels[rows : rows + 12, COLUMN["pair"]]) for rows, kind, _ in made.rows.media if kind == "audio"]
    assert counts[:4] == [{0}, {1}, {2}, {3}]
    assert set(labels[:, COLUMN["pair meant"]]) == {-100, 2}, "it is pair 2 that begins at 2.0 s"
    meant = np.flatnonzero(labels[:, COLUMN["pair meant"]] == 2)
    said = {row for kind, first, stop in made.rows.said if kind == "together" for row in range(first, stop)}
    assert said <= set(meant)


def test_an_answer_hangs_on_the_field_of_its_thing_and_on_the_word_that_was_said() -> None:
    """The ring is red when the scene ends and "red" was said; a second scene has nothing of that colour."""
    ring = thing(0, "ring", "red", 0.83, 0.17, 2)
    for colour, field in (("red", 1 + 3), ("blue", 0)):
        said = Sound("word", colour, 2.2, 2.6, 0)
        scene = Scene(1, 6.0, (ring,), (), (said,))
        found = set()
        for seed in range(40):
            made = lesson(scene, seed)
            labels = hints(made)
            rows = labels[labels[:, COLUMN["said"]] >= 0]
            found |= {(int(row[COLUMN["said"]]), int(row[COLUMN["field"]])) for row in rows}
        assert found == {(WORDS.index(colour), field)}


def test_a_thing_is_found_from_its_name_on_with_all_that_it_is() -> None:
    """Where the question names nothing, as "it" does, from the question's end on."""
    ring = thing(0, "ring", "red", 0.83, 0.17, 2)
    star = thing(1, "star", "blue", 0.17, 0.83, 6)._replace(size="large")
    scene = Scene(1, 3.0, (ring, star), (), ())
    meant = [COLUMN[name] for name in ("field", "shape meant", "colour meant", "size meant")]
    expected = {
        (4, SHAPES.index("ring"), COLOURS.index("red"), world.SIZES.index("small")),
        (13, SHAPES.index("star"), COLOURS.index("blue"), world.SIZES.index("large")),
    }
    vocabulary = Vocabulary(tokenizer())
    names = {vocabulary.ids(f"{space}{word}")[-1] for word in (*SHAPES, *COLOURS) for space in ("", " ")}
    asked = {"shape", "colour", "where", "size", "is there", "follow-up"}
    seen, kinds = set(), set()
    for seed in range(12):
        made = lesson(scene, seed)
        labels = hints(made)
        for kind, first, stop in made.rows.said:
            if kind not in asked:
                continue
            found = {tuple(row) for row in labels[first:stop, meant].tolist()}
            assert len(found) == 1, "an answer is about one thing"
            (what,) = found
            if what[0] == 0:
                assert what == (0, -100, -100, -100), "there is no such thing"
                continue
            seen.add(what)
            kinds.add(kind)
            begins = first
            while labels[begins - 1, COLUMN["field"]] == what[0] and begins - 1 not in _said(made):
                begins -= 1
            if kind != "follow-up":
                assert made.rows.ids[begins] in names
    assert seen == expected
    assert kinds == asked


def test_no_thing_is_meant_where_two_would_do() -> None:
    """Of two red rings neither is the one that "Is there a red ring?" is about."""
    first = thing(0, "ring", "red", 0.83, 0.17, 2)
    scene = Scene(1, 3.0, (first, first._replace(number=1, x=0.17, place=0)), (), ())
    answers = set()
    for seed in range(12):
        made = lesson(scene, seed)
        labels = hints(made)
        for kind, start, stop in made.rows.said:
            if kind == "is there":
                answers |= {(int(made.rows.labels[start]), *map(int, labels[start:stop, COLUMN["field"]]))}
    yes, no = (tokenizer().encode(word)[0] for word in ("yes", "no"))
    assert {answer[0] for answer in answers} == {yes, no}
    assert all(set(fields) == {-100 if said == yes else 0} for said, *fields in answers)


def _said(made: Lesson) -> set[int]:
    return {row for _, first, stop in made.rows.said for row in range(first, stop)}
