"""What a watcher of Brook's world says: sentences for what is there, what changes and what is heard.

In: a scene. Out: sentences, lower case, each with a period at its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from .world import Change, Scene, Sound, Thing

UNKNOWN = "I do not know."


def with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"; "nothing" for none."""
    if len(names) < 2:
        return names[0] if names else "nothing"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def things_listed(things: Sequence[Thing]) -> str:
    """Everything there, in reading order, without the period."""
    return listed([with_article(thing.name) for thing in things])


def opening(scene: Scene, time: float) -> str:
    """What a narration begins with, at its first picture and after a cut."""
    if scene.foreign_at(time):
        return "I see something I do not know."
    return f"I see {things_listed(scene.settled(time))}."


def change_told(change: Change) -> str:
    thing = change.before
    if change.kind == "came":
        return f"{with_article(thing.name)} came in."
    if change.kind == "left":
        return f"the {thing.name} left."
    if change.kind == "moved":
        return f"the {thing.name} moved {change.way}."
    return f"the {thing.name} turned {change.after.colour}."


def sound_told(sound: Sound) -> str:
    if sound.kind == "beep":
        return f"a {sound.value} beep."
    return f"someone said {sound.value if sound.kind == 'word' else 'something'}."
