"""Exam papers: films with questions about them, and narration to be checked. In: a seed. Out: `Paper`s.

The truth stays here and with evaluate.py. It does not know who answers, nor how films are sent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .moment import Moment
from .narration import change_told, opening, sound_told
from .questions import KINDS, STILL, BrookQuestion, ask
from .sound import Bank
from .world import Scene, SceneMaker, Wish

HELD_OUT = "held-out pictures"
FOREIGN = "foreign pictures"
STRANGE = "foreign words"
NARRATED = ("came", "left", "moved", "turned", "cut", "beep", "word")
_ONE_ANSWER = ("nothing", "unknown", FOREIGN, STRANGE)  # kinds to which one answer is always right
_STILL = tuple(kind for kind in STILL if kind != "size")  # of these there is always a question
_EVALUATION_TAKES = 10_000


class Paper(NamedTuple):
    """A scene, whether it has sound, and questions to be asked at its end. Without questions: to be narrated."""

    scene: Scene
    sounds: bool
    questions: list[tuple[str, BrookQuestion]]


class Told(NamedTuple):
    """A sentence that narration should hold, for something that happened at `time`."""

    kind: str
    sentence: str
    time: float


def events(scene: Scene, sounds: bool) -> list[Told]:
    """What narration should tell, in order of time."""
    told = [Told("cut", opening(scene, cut), cut) for cut in scene.cuts]
    changes = [change for change in scene.changes if change.time not in scene.cuts]
    told += [Told(change.kind, change_told(change), change.time) for change in changes]
    if sounds:
        told += [Told(sound.kind, sound_told(sound), sound.start) for sound in scene.sounds]
    return sorted(told, key=lambda event: event.time)


def evaluation_bank(seed: int, takes: int = 12) -> Bank:
    """Voices that were never heard in training, other ones for each seed."""
    first = _EVALUATION_TAKES + 1000 * seed
    return Bank(range(first, first + takes), half=1, others=2)


def alike(answer: str) -> str:
    """The answer, but one and the same for all that say that some named thing is not there."""
    return re.sub(r"^there is no .*", "there is no such thing.", answer)


class Examiner:
    """Draws papers until every kind has been asked `count` times."""

    def __init__(self, seed: int, bank: Bank, count: int, held_out: bool) -> None:
        self._random = np.random.default_rng((seed, 77))
        self._maker = SceneMaker(self._random, bank.seconds)
        self._count = count
        self._kinds = [*KINDS, FOREIGN, STRANGE, *([HELD_OUT] if held_out else [])]
        self._asked: Counter[str] = Counter()
        self._answers: Counter[tuple[str, str]] = Counter()

    def papers(self) -> Iterator[Paper]:
        """Papers of at most six questions, of the kinds that have been asked least. No answer is right to more than
        half of a kind, so that who always says the same is wrong as often as not."""
        while any(self._asked[kind] < self._count for kind in self._kinds):
            least = min(self._kinds, key=lambda kind: self._asked[kind])
            scene = self._maker.scene(self._wish(least))
            questions = [
                (kind, question) for kind, question in self._questions(scene, least) if self._is_rare(kind, question)
            ]
            if any(kind == least for kind, _ in questions):
                for kind, question in questions:
                    self._asked[kind] += 1
                    self._answers[kind, alike(question.answer)] += 1
                yield Paper(scene, True, questions)

    def _is_rare(self, kind: str, question: BrookQuestion) -> bool:
        return kind in _ONE_ANSWER or self._answers[kind, alike(question.answer)] < (self._count + 1) // 2

    def narrations(self, count: int, cut: bool) -> Iterator[Paper]:
        """Papers without questions; with a cut in each film, to or from foreign pictures in every third, or none."""
        wish = Wish(seconds=12.0, change_gap=2.2, sound_gap=1.2, cut=float(cut))
        for number in range(count):
            foreign = str(self._random.choice(["noise", "texture", "photo"])) if cut and number % 3 == 2 else ""
            yield Paper(self._maker.scene(wish._replace(foreign=foreign)), True, [])

    def _wish(self, kind: str) -> Wish:
        seconds = float(np.round(self._random.uniform(4.0, 9.0), 1))
        if kind == FOREIGN:
            return Wish(seconds=seconds, foreign=str(self._random.choice(["noise", "texture", "photo"])))
        if kind == HELD_OUT:
            return Wish(seconds=seconds, held_out="start", change_gap=0)
        if kind == STRANGE:
            return Wish(seconds=seconds, beeps=0.1, others=0.8)
        if kind == "nothing":
            quiet = bool(self._random.random() < 0.5)
            return Wish(seconds=seconds, most_things=4 * quiet, change_gap=0, sound_gap=0 if quiet else 1.5)
        gap = float(self._random.choice([1.5, 2.2, 3.0])) if self._random.random() < 0.85 else 0.0
        return Wish(seconds=seconds, change_gap=gap, sound_gap=float(self._random.choice([0.8, 1.5])))

    def _questions(self, scene: Scene, least: str) -> Iterator[tuple[str, BrookQuestion]]:
        moment = Moment(scene, scene.seconds, scene.seconds, self._random, half=1)
        if least in (FOREIGN, STRANGE, HELD_OUT):
            kinds = _STILL if least != STRANGE else ("heard", "word")
            for _ in range(3):
                question = ask(kinds[int(self._random.integers(len(kinds)))], moment)
                if question is not None and (least != STRANGE or question.answer == "I do not know."):
                    yield least, question
            return
        for kind in sorted(KINDS, key=lambda kind: self._asked[kind])[:6]:
            question = ask(kind, moment)
            if question is not None and self._asked[kind] < self._count:
                yield kind, question
