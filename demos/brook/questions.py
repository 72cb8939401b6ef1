"""Questions about a scene and their right answers. In: a moment of a scene. Out: a kind, a question in varied wording,
the one answer that counts as right.

It does not know how a question is asked or who answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from . import foreign
from .moment import Found, Moment
from .narration import UNKNOWN
from .sights import SIGHTS
from .sounds import SOUNDS, TOGETHER
from .world import PLACES, Thing


class BrookQuestion(NamedTuple):
    """`finds`: what has to be found out on the way to the answer, by columns of hints.py, or the "moment" or the
    number of the "thing" that is meant. `lead` is the question before it, where this one is a follow-up."""

    kind: str
    text: str
    answer: str
    finds: Mapping[str, float] = MappingProxyType({})
    lead: BrookQuestion | None = None


def _nothing(m: Moment) -> tuple[str, str] | Found | None:
    if m.shows and not m.foreign and not m.things and m.chance(0.5):
        return SIGHTS["what"](m)
    if not m.sounds:
        return SOUNDS["heard"](m) if m.chance(0.5) else SOUNDS["word"](m)
    return None


def _unknown(m: Moment) -> tuple[str, str]:
    return foreign.question(m.random, m.half), UNKNOWN


_ALL: dict[str, Callable[[Moment], tuple[str, str] | Found | None]] = {
    **SIGHTS,
    **SOUNDS,
    **TOGETHER,
    "nothing": _nothing,
    "unknown": _unknown,
}
PICTURE_KINDS, SOUND_KINDS = (*SIGHTS, "follow-up"), tuple(SOUNDS)
KINDS = (*PICTURE_KINDS, *SOUND_KINDS, *TOGETHER, "nothing", "unknown")
STILL = ("what", "shape", "colour", "count", "where", "size", "is there")  # they ask of the newest picture alone

_FOLLOWS: dict[str, tuple[tuple[str, ...], Callable[[Thing], str]]] = {
    "colour": (("And what colour is it?", "What colour is it?"), lambda thing: thing.colour),
    "shape": (("And what shape is it?", "What shape is it?"), lambda thing: thing.shape),
    "where": (("And where is it?", "Where is it?"), lambda thing: PLACES[thing.place]),
    "size": (("And is it small or large?", "Is it small or large?", "How large is it?"), lambda thing: thing.size),
}


def _follow(m: Moment) -> BrookQuestion | None:
    """A question about one thing, then another about the same one, named "it"."""
    single = [
        thing for thing in m.things if len(m.with_shape(thing.shape)) == 1 and len(m.with_colour(thing.colour)) == 1
    ]
    if not single:
        return None
    only = m.pick(single)
    alone = Moment(m.scene, None, None, m.random)
    alone.things, alone.shows = [only], True
    while True:
        first = m.pick(("colour", "shape", "where", "size"))
        made = SIGHTS[first](alone)
        if made is not None and not made[1].startswith("there is no"):
            break
    taken = {first} | ({"colour", "shape"} if only.name in made[0] else set())
    taken |= {"shape"} if only.shape in made[0] else set()
    taken |= {"colour"} if only.colour in made[0] else set()
    second = m.pick([kind for kind in _FOLLOWS if kind not in taken])
    forms, answer = _FOLLOWS[second]
    lead = _question(first, made)
    return BrookQuestion("follow-up", m.says(*forms), f"{answer(only)}.", lead.finds, lead)


def ask(kind: str, m: Moment) -> BrookQuestion | None:
    """A question of `kind`; None where this moment gives no cause for one."""
    if kind == "follow-up":
        return None if m.foreign else _follow(m)
    if m.scene.foreign and m.scene.cuts and kind in (*SIGHTS, *TOGETHER) and kind not in STILL:
        return None
    made = _ALL[kind](m)
    if made is None:
        return None
    if m.foreign and (kind in SIGHTS or kind in TOGETHER):
        return BrookQuestion("unknown", made[0], UNKNOWN)
    return _question(kind, made)


def _question(kind: str, made: tuple[str, str] | Found) -> BrookQuestion:
    return BrookQuestion(kind, made[0], made[1], made[2] if len(made) == 3 else {})
