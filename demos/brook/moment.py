"""What a stream has shown when a question is asked. In: a scene, how far it has been seen and heard. Out: the things,
changes and sounds that count, and names and wordings drawn for them. It knows no questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from .world import COLOURS, SHAPES, Scene, Sound, Thing

_T = TypeVar("_T")
Found = tuple[str, str, Mapping[str, float]]  # question, answer, what has to be found out on the way
NO_THING = -1  # in place of a thing's number


class Moment:
    """What a stream has shown: pictures up to `seen`, sound from its start up to `heard` (None: there was none).

    `half` is the half of the foreign questions that may be asked: 0 in training, 1 in evaluation.
    """

    def __init__(
        self, scene: Scene, seen: float | None, heard: float | None, random: np.random.Generator, half: int = 0
    ) -> None:
        self.half = half
        self.scene = scene
        self.random = random
        self.things = [] if seen is None else scene.settled(seen)
        self.changes = [] if seen is None else scene.changes_until(seen)
        self.sounds = [] if heard is None else scene.sounds_until(heard)
        self.shows = seen is not None
        self.foreign = "" if seen is None else scene.foreign_at(seen)

    def at(self, time: float) -> list[Thing]:
        """What was there at `time`, as far as pictures were shown at all."""
        return self.scene.settled(time) if self.shows else []

    def pick(self, choices: Sequence[_T]) -> _T:
        return choices[int(self.random.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def says(self, *forms: str, **words: str) -> str:
        return self.pick(forms).format(**words)

    @property
    def words(self) -> list[Sound]:
        return [sound for sound in self.sounds if sound.kind != "beep"]

    @property
    def beeps(self) -> list[Sound]:
        return [sound for sound in self.sounds if sound.kind == "beep"]

    def with_shape(self, shape: str) -> list[Thing]:
        return [thing for thing in self.things if thing.shape == shape]

    def with_colour(self, colour: str) -> list[Thing]:
        return [thing for thing in self.things if thing.colour == colour]

    def name(self, thing: Thing) -> str:
        """A way to name a thing that fits no other: "circle", "red thing", "red circle"."""
        names = [thing.name]
        if len(self.with_shape(thing.shape)) == 1:
            names += [thing.shape] * 2
        if len(self.with_colour(thing.colour)) == 1:
            names.append(f"{thing.colour} thing")
        return self.pick(names)

    def absent_shape(self) -> str:
        return self.pick([shape for shape in SHAPES if not self.with_shape(shape)])

    def absent_colour(self) -> str:
        return self.pick([colour for colour in COLOURS if not self.with_colour(colour)])
