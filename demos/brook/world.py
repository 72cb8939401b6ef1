"""Brook's world: things on a 3 by 3 board, what happens to them, and what is heard. Numbers and words, no pixels.

In: a seed. Out: a `Scene`, a script of some seconds that tells at any media time what is there. It does not know how a
scene looks (draw.py), sounds (sound.py) or is asked about (questions.py).

Lengths are in widths of the picture, times in seconds of media. An event happens at its `time`: for a movement, a
coming or a leaving that takes a while, the moment when half of it is done.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIZES = ("small", "large")
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = NUMBERS + COLOURS
PITCHES = ("low", "high")
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # fields across and down
MOST_THINGS = 4

_RADII = {"small": (0.085, 0.105), "large": (0.145, 0.175)}
_JITTER = 0.06


class Thing(NamedTuple):
    """One thing as it is at some moment: `x`, `y` its centre, `radius` its size, `place` the field it belongs to."""

    number: int
    shape: str
    colour: str
    size: str
    radius: float
    x: float
    y: float
    place: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


class Change(NamedTuple):
    """Something seen to happen to thing `number`: "came", "left", "moved" or "turned".

    It takes from `start` to `stop`. `before` and `after` are the thing at both ends; outside the picture where it comes
    from or goes to the edge. `way` is the direction of a movement, "" otherwise.
    """

    kind: str
    start: float
    stop: float
    before: Thing
    after: Thing
    way: str = ""

    @property
    def time(self) -> float:
        return (self.start + self.stop) / 2


class Sound(NamedTuple):
    """Something heard: `kind` "beep" (value "high" or "low"), "word" (value in `WORDS`), "other" (a foreign word).

    `start` to `stop` is where it can be heard. `take` picks the voice or the exact tone.
    """

    kind: str
    value: str
    start: float
    stop: float
    take: int


class Scene(NamedTuple):
    """A script of `seconds`. `things` are there at the start; `seed` gives what lies behind, shades, noise.

    `foreign` marks pictures outside the world ("noise", "texture", "photo"; "" for a scene of the world). `cuts` are
    moments, at most one, at which all is another picture: what was there has left, what is there has come, another
    backdrop. Of a foreign scene with a cut only the pictures before it are foreign, or only those behind it.
    """

    seed: int
    seconds: float
    things: tuple[Thing, ...]
    changes: tuple[Change, ...]
    sounds: tuple[Sound, ...]
    foreign: str = ""
    cuts: tuple[float, ...] = ()
    foreign_first: bool = True

    def after(self, seconds: float) -> Scene:
        """The same scene, in which for so many seconds nothing has happened yet."""
        changes = (c._replace(start=c.start + seconds, stop=c.stop + seconds) for c in self.changes)
        sounds = (s._replace(start=s.start + seconds, stop=s.stop + seconds) for s in self.sounds)
        cuts = tuple(cut + seconds for cut in self.cuts)
        return self._replace(seconds=self.seconds + seconds, changes=tuple(changes), sounds=tuple(sounds), cuts=cuts)

    def foreign_at(self, time: float) -> str:
        """What kind of foreign picture there is at `time`, or ""."""
        known = self.cuts and (time < self.cuts[0]) != self.foreign_first
        return "" if known else self.foreign

    def at(self, time: float) -> list[Thing]:
        """What is in the picture at `time`, things in the middle of a movement where they are then."""
        there = {thing.number: thing for thing in self.things}
        for change in self.changes:
            if change.start > time:
                break
            _apply(there, change, time)
        return list(there.values())

    def settled(self, time: float) -> list[Thing]:
        """What has become of all changes that happened up to `time`, each taken as done; in reading order."""
        there = {thing.number: thing for thing in self.things}
        for change in self.changes_until(time):
            _apply(there, change, change.stop)
        return sorted(there.values(), key=lambda thing: thing.place)

    def changes_until(self, time: float) -> list[Change]:
        return [change for change in self.changes if change.time <= time]

    def sounds_until(self, time: float) -> list[Sound]:
        return [sound for sound in self.sounds if sound.stop <= time]


def _apply(there: dict[int, Thing], change: Change, time: float) -> None:
    number = change.after.number
    if change.stop <= time or change.kind == "turned":
        there[number] = change.after
        if change.kind == "left":
            del there[number]
        return
    share = (time - change.start) / (change.stop - change.start)
    x = change.before.x + share * (change.after.x - change.before.x)
    y = change.before.y + share * (change.after.y - change.before.y)
    there[number] = change.after._replace(x=x, y=y)


def is_held_out(shape: str, colour: str, number: int) -> bool:
    """Whether a thing of this shape and colour, as one of `number` things, is never shown in training.

    Four pairs of shape and colour are held out with every number, and of the others one number in eleven.
    """
    s, c = SHAPES.index(shape), COLOURS.index(colour)
    return (2 * s + c) % 13 == 7 or (s + 3 * c + 5 * number) % 11 == 4


def any_held_out(things: list[Thing]) -> bool:
    return any(is_held_out(thing.shape, thing.colour, len(things)) for thing in things)


def _fresh(things: tuple[Thing, ...], changes: list[Change]) -> int:
    """A number that nothing has had."""
    return 1 + max((thing.number for thing in (*things, *(change.after for change in changes))), default=-1)


class Wish(NamedTuple):
    """What a scene shall hold: chances and largest numbers. `held_out`: "never" (training), "start" (a held-out
    combination at the start), "any"."""

    seconds: float = 8.0
    most_things: int = MOST_THINGS
    change_gap: float = 2.2  # mean seconds between changes; 0 for none
    sound_gap: float = 2.0
    beeps: float = 0.5  # share of beeps among sounds
    others: float = 0.0  # share of foreign words among sounds
    held_out: str = "never"
    foreign: str = ""
    echoes: float = 0.0  # chance that a word names a colour, or the number, of the things that are there
    again: float = 0.0  # chance that a thing that moved or turned does the same once more, before another does
    cut: float = 0.0  # chance of a cut; a short scene has none


class SceneMaker:
    """Draws scenes from one generator. `durations` gives the seconds that a word's take lasts."""

    def __init__(self, random: np.random.Generator, word_seconds: dict[str, list[float]]) -> None:
        self._random = random
        self._word_seconds = word_seconds

    def scene(self, wish: Wish) -> Scene:
        """A scene that fits the wish; tries again where a held-out combination comes up unasked."""
        for _ in range(1000):
            cuts = self._cuts(wish)
            first = not cuts or bool(self._random.random() < 0.5)
            scene = Scene(0, wish.seconds, (), (), (), wish.foreign, cuts, first)
            scene = scene._replace(things=() if scene.foreign_at(0.0) else self._start(wish))
            if wish.held_out == "start" and not any_held_out(list(scene.things)):
                continue
            scene = scene._replace(changes=tuple(self._changes(wish, scene)), seed=int(self._random.integers(2**31)))
            if cuts and not wish.foreign and sum(change.time == cuts[0] for change in scene.changes) < 2:
                continue
            scene = scene._replace(sounds=tuple(self._echoed(list(self._sounds(wish)), scene, wish)))
            moments = [scene.settled(-1.0), *(scene.settled(change.time) for change in scene.changes)]
            if wish.held_out == "never" and any(any_held_out(moment) for moment in moments):
                continue
            return scene
        raise ValueError(f"no scene fits {wish} in 1000 tries")

    def _start(self, wish: Wish) -> tuple[Thing, ...]:
        count = int(self._random.integers(0, wish.most_things + 1))
        things: list[Thing] = []
        for _ in range(count):
            thing = self._new(len(things), things)
            if thing is not None:
                things.append(thing)
        return tuple(things)

    def _new(self, number: int, others: list[Thing]) -> Thing | None:
        """A thing at a free place; None where there is no room."""
        for _ in range(20):
            size = SIZES[int(self._random.integers(2))]
            # Names are repeated now and then, so that things have to be counted and told apart.
            like = others[int(self._random.integers(len(others)))] if others and self._random.random() < 0.3 else None
            shape = SHAPES[int(self._random.integers(len(SHAPES)))]
            colour = COLOURS[int(self._random.integers(len(COLOURS)))]
            if like is not None:
                shape, colour = (like.shape, colour) if self._random.random() < 0.5 else (shape, like.colour)
            if any((thing.shape, thing.colour) == (shape, colour) for thing in others):
                continue
            thing = Thing(number, shape, colour, size, float(self._random.uniform(*_RADII[size])), 0.0, 0.0, 0)
            placed = self._placed(thing, int(self._random.integers(len(PLACES))))
            if _is_free(placed, others):
                return placed
        return None

    def _placed(self, thing: Thing, place: int) -> Thing:
        x, y = ((place % 3) * 2 + 1) / 6, ((place // 3) * 2 + 1) / 6
        low, high = thing.radius * 0.9, 1 - thing.radius * 0.9
        x += float(self._random.uniform(-_JITTER, _JITTER))
        y += float(self._random.uniform(-_JITTER, _JITTER))
        return thing._replace(x=min(max(x, low), high), y=min(max(y, low), high), place=place)

    def _cuts(self, wish: Wish) -> tuple[float, ...]:
        first, last = 1.0, wish.seconds - 1.2
        if last < first or not wish.cut or self._random.random() >= wish.cut:
            return ()
        return (float(self._random.uniform(first, last)),)

    def _changes(self, wish: Wish, scene: Scene) -> list[Change]:
        there = {thing.number: thing for thing in scene.things}
        changes: list[Change] = []
        for start, stop in itertools.pairwise((0.0, *scene.cuts, scene.seconds)):
            foreign, fresh = scene.foreign_at(start), _fresh(scene.things, changes)
            if start:
                changes += self._swapped(0 if foreign else wish.most_things, there, fresh, start)
            if not foreign:
                changes += self._stretch(wish, there, _fresh(scene.things, changes), start, stop)
        return changes

    def _swapped(self, most: int, there: dict[int, Thing], fresh: int, time: float) -> list[Change]:
        """A cut: everything leaves, and one to `most` things of other names are there; none where `most` is 0."""
        gone = [Change("left", time, time, thing, thing) for thing in there.values()]
        names = {thing.name for thing in there.values()}
        there.clear()
        for number in range(int(self._random.integers(1, most + 1)) if most else 0):
            thing = self._new(fresh + number, list(there.values()))
            if thing is not None and thing.name not in names:
                there[thing.number] = thing
        return [*gone, *(Change("came", time, time, thing, thing) for thing in there.values())]

    def _stretch(self, wish: Wish, there: dict[int, Thing], fresh: int, start: float, stop: float) -> Iterator[Change]:
        """Changes, one after the other; `there` is kept up to date. Things that come are numbered from `fresh` on."""
        if not wish.change_gap:
            return
        time = start + float(self._random.uniform(0.6, 1.0 + wish.change_gap))
        last: Change | None = None
        while time < stop - 1.2:
            kind = ("came", "left", "moved", "turned")[int(self._random.choice(4, p=(0.27, 0.2, 0.29, 0.24)))]
            same = None
            if wish.again and last and last.kind in ("moved", "turned") and self._random.random() < wish.again:
                kind, same = last.kind, last.after
            change = self._change(kind, time, there, fresh, wish.most_things, same)
            if change is None:
                time += 0.2
                continue
            if stop < wish.seconds and change.stop > stop - 0.2:
                return  # a cut would tear it apart
            fresh += kind == "came"
            there[change.after.number] = change.after
            if kind == "left":
                del there[change.after.number]
            last = change
            yield change
            time = change.stop + float(self._random.uniform(1.0, 2 * wish.change_gap - 1.0))

    def _change(
        self, kind: str, time: float, there: dict[int, Thing], fresh: int, most: int, same: Thing | None
    ) -> Change | None:
        """A change of this kind from `time` on, to the `same` thing if one is given; None where there is nothing to
        change or no room."""
        others = list(there.values())
        if kind == "came":
            thing = self._new(fresh, others) if len(others) < most else None
            return thing and self._come(thing, time, others)
        if not others:
            return None
        thing = same or others[int(self._random.integers(len(others)))]
        others.remove(thing)
        if kind == "left":
            change = self._come(thing, time, others)
            return change._replace(kind="left", before=change.after, after=change.before)
        if kind == "turned":
            colour = COLOURS[int(self._random.integers(len(COLOURS)))]
            taken = colour == thing.colour or any((o.shape, o.colour) == (thing.shape, colour) for o in others)
            return None if taken else Change("turned", time, time, thing, thing._replace(colour=colour))
        return self._move(thing, time, others)

    def _come(self, thing: Thing, time: float, others: list[Thing]) -> Change:
        """Slides in from the edge next to its place, or is there at once."""
        column, row = thing.place % 3 - 1, thing.place // 3 - 1
        edges = [(column, 0)] * bool(column) + [(0, row)] * bool(row)
        if not edges or self._random.random() < 0.4:
            return Change("came", time, time, thing, thing)
        across, down = edges[int(self._random.integers(len(edges)))]
        out = 1 + thing.radius
        x = thing.x if not across else out if across > 0 else -thing.radius
        y = thing.y if not down else out if down > 0 else -thing.radius
        return Change("came", time, time + float(self._random.uniform(0.4, 0.8)), thing._replace(x=x, y=y), thing)

    def _move(self, thing: Thing, time: float, others: list[Thing]) -> Change | None:
        way = tuple(WAYS)[int(self._random.integers(len(WAYS)))]
        across, down = WAYS[way]
        steps = int(self._random.integers(1, 3))
        column, row = thing.place % 3 + across * steps, thing.place // 3 + down * steps
        if not (0 <= column <= 2 and 0 <= row <= 2):
            return None
        goal = self._placed(thing, row * 3 + column)
        goal = goal._replace(x=thing.x if not across else goal.x, y=thing.y if not down else goal.y)
        halves = [thing._replace(x=(thing.x + goal.x) / 2, y=(thing.y + goal.y) / 2), goal]
        if not all(_is_free(half, others) for half in halves):
            return None
        return Change("moved", time, time + float(self._random.uniform(0.4, 0.5 + 0.4 * steps)), thing, goal, way)

    def _sounds(self, wish: Wish) -> Iterator[Sound]:
        if not wish.sound_gap:
            return
        time = float(self._random.uniform(0.1, wish.sound_gap))
        while True:
            take = int(self._random.integers(2**31))
            draw = self._random.random()
            if draw < wish.beeps:
                kind, value = "beep", PITCHES[int(self._random.integers(2))]
                length = float(self._random.uniform(0.12, 0.3))
            elif draw < wish.beeps + wish.others:
                kind, value = "other", "other"
                length = self._length("other", take)
            else:
                kind, value = "word", WORDS[int(self._random.integers(len(WORDS)))]
                length = self._length(value, take)
            if time + length > wish.seconds - 0.3:
                return
            yield Sound(kind, value, time, time + length, take)
            # Now and then sounds come in quick succession, so that beeps have to be counted.
            gap = self._random.uniform(0.25, 0.5) if self._random.random() < 0.35 else self._random.exponential(1.0)
            time += length + 0.25 + float(gap) * wish.sound_gap

    def _echoed(self, sounds: list[Sound], scene: Scene, wish: Wish) -> list[Sound]:
        """Now and then with another word, where there is time for it."""
        for number, sound in enumerate(sounds):
            if sound.kind != "word" or not wish.echoes or self._random.random() >= wish.echoes:
                continue
            things = scene.settled(sound.stop)
            value = NUMBERS[len(things)]
            if things and self._random.random() < 0.75:
                value = things[int(self._random.integers(len(things)))].colour
            said = sound._replace(value=value, stop=sound.start + self._length(value, sound.take))
            until = sounds[number + 1].start - 0.25 if number + 1 < len(sounds) else wish.seconds - 0.3
            if said.stop <= until:
                sounds[number] = said
        return sounds

    def _length(self, word: str, take: int) -> float:
        takes = self._word_seconds[word]
        return takes[take % len(takes)]


def _is_free(thing: Thing, others: list[Thing]) -> bool:
    return all(
        np.hypot(thing.x - other.x, thing.y - other.y) >= (thing.radius + other.radius) * 1.05 for other in others
    )
