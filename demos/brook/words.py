"""The sentences that Brook's tokenizer is made from: questions, answers and narration of many scenes. In: a seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import foreign
from .lessons import NARRATE
from .moment import Moment
from .narration import UNKNOWN, change_told, opening, sound_told
from .questions import KINDS, ask
from .world import COLOURS, NUMBERS, PLACES, SHAPES, SIZES, WORDS, SceneMaker, Wish

_COMMON = (
    "system user assistant You are a helpful assistant. You watch a door. Hello! Who is there? Yes, please. Thank you. "
    "the a an of to and in that it is was for on are as with his they at be this have from or had by hot but some what "
    "there we can out other were all your when up use word how said each she which do their time if will way about "
    "many then them would write like so these her long make thing see him two has look more day could go come did my "
    "sound no most number who over know water than call first people may down side been now find any new work part "
    "take get place made live where after back little only round man year came show every good me give our under"
)


def sentences(seed: int = 0, scenes: int = 2500) -> Iterator[str]:
    """Every word of the world in sentence-like company, and some common English around it."""
    random = np.random.default_rng(seed)
    maker = SceneMaker(random, {word: [0.4] for word in (*WORDS, "other")})
    for _ in range(scenes):
        scene = maker.scene(Wish(seconds=10.0))
        moment = Moment(scene, 9.5, 10.0, random)
        yield from (f" {change_told(change)}" for change in scene.changes)
        yield from (f" {sound_told(sound)}" for sound in scene.sounds)
        yield opening(scene, 0.0)
        yield f" {opening(scene, 0.0)}"
        for kind in KINDS:
            question = ask(kind, moment)
            if question is not None:
                yield question.text
                yield question.answer
    for _ in range(200):
        yield foreign.question(random, 0)
    for _ in range(60):
        yield from NARRATE
        yield f"{UNKNOWN} {UNKNOWN.lower()} {_COMMON}"
        for word in (*SHAPES, *COLOURS, *NUMBERS, *SIZES, *PLACES):
            yield f"{word} {word} {word}s {word.capitalize()}"
