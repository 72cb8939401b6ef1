"""Questions about pictures: what is there and what has become of it. In: a moment. Out: a question, its right answer;
None where the moment gives no cause for one.
"""

from __future__ import annotations

from collections.abc import Callable

from .moment import NO_THING, Found, Moment
from .narration import change_told, things_listed
from .world import COLOURS, NUMBERS, PLACES, SHAPES, SIZES, Change, Thing


def _what(m: Moment) -> tuple[str, str]:
    text = m.says(
        "What do you see?",
        "What is in the picture?",
        "What is there?",
        "What can you see now?",
        "Describe the picture.",
        "Tell me what you see.",
        "Which things are there?",
        "What is in view?",
    )
    return text, f"{things_listed(m.things)}."


def _shape(m: Moment) -> Found | None:
    single = [thing for thing in m.things if len(m.with_colour(thing.colour)) == 1]
    if not single or m.chance(0.08):
        colour, number = m.absent_colour(), NO_THING
        answer = f"there is no {colour} thing."
    else:
        thing = m.pick(single)
        colour, answer, number = thing.colour, f"{thing.shape}.", thing.number
    text = m.says(
        "What shape is the {c} thing?",
        "Which shape is {c}?",
        "What is {c}?",
        "What is the {c} thing?",
        "Which shape does the {c} thing have?",
        "What form has the {c} one?",
        c=colour,
    )
    return text, answer, {"thing": number}


def _colour(m: Moment) -> Found | None:
    single = [thing for thing in m.things if len(m.with_shape(thing.shape)) == 1]
    if not single or m.chance(0.08):
        shape, number = m.absent_shape(), NO_THING
        answer = f"there is no {shape}."
    else:
        thing = m.pick(single)
        shape, answer, number = thing.shape, f"{thing.colour}.", thing.number
    text = m.says(
        "What colour is the {s}?",
        "Which colour is the {s}?",
        "What is the colour of the {s}?",
        "What color is the {s}?",
        "Which colour does the {s} have?",
        "The {s} has what colour?",
        s=shape,
    )
    return text, answer, {"thing": number}


def _count(m: Moment) -> tuple[str, str]:
    draw = m.random.random()
    if draw < 0.5:
        noun, number = m.pick(("things", "shapes", "objects")), len(m.things)
    elif draw < 0.7 and m.things:
        shape = m.pick(m.things).shape if m.chance(0.8) else m.pick(SHAPES)
        noun, number = f"{shape}es" if shape == "cross" else f"{shape}s", len(m.with_shape(shape))
    elif draw < 0.85 and m.things:
        colour = m.pick(m.things).colour if m.chance(0.8) else m.pick(COLOURS)
        noun, number = f"{colour} things", len(m.with_colour(colour))
    else:
        size = m.pick(SIZES)
        noun, number = f"{size} things", sum(thing.size == size for thing in m.things)
    text = m.says(
        "How many {n} do you see?",
        "How many {n} are there?",
        "How many {n} are in the picture?",
        "Count the {n}.",
        "How many {n} can you see now?",
        "Tell me the number of {n}.",
        n=noun,
    )
    return text, f"{NUMBERS[number]}."


def _where(m: Moment) -> Found:
    if not m.things or m.chance(0.08):
        name = m.absent_shape() if m.chance(0.5) else f"{m.absent_colour()} thing"
        answer, number = f"there is no {name}.", NO_THING
    else:
        thing = m.pick(m.things)
        name, answer, number = m.name(thing), f"{PLACES[thing.place]}.", thing.number
    text = m.says(
        "Where is the {n}?",
        "Where do you see the {n}?",
        "In which place is the {n}?",
        "Where can I find the {n}?",
        "Which place is the {n} in?",
        "Tell me where the {n} is.",
        n=name,
    )
    return text, answer, {"thing": number}


def _size(m: Moment) -> Found | None:
    if not m.things:
        return None
    thing = m.pick(m.things)
    text = m.says(
        "Is the {n} small or large?",
        "How large is the {n}?",
        "What size is the {n}?",
        "How big is the {n}?",
        "Which size has the {n}?",
        n=m.name(thing),
    )
    return text, f"{thing.size}.", {"thing": thing.number}


def _names(thing: Thing) -> tuple[str, ...]:
    return thing.name, thing.shape, f"{thing.colour} thing"


def _is_there(m: Moment) -> Found | None:
    yes, number = m.chance(0.5), NO_THING
    if yes:
        if not m.things:
            return None
        thing = m.pick(m.things)
        name, number = m.pick(_names(thing)), thing.number
    else:
        draw = m.random.random()
        if draw < 0.5 and m.things:
            # Half right: the colour or the shape is there, not both together.
            thing = m.pick(m.things)
            shape, colour = (m.pick(SHAPES), thing.colour) if m.chance(0.5) else (thing.shape, m.pick(COLOURS))
            if any((o.shape, o.colour) == (shape, colour) for o in m.things):
                return None
            name = f"{colour} {shape}"
        else:
            name = m.absent_shape() if m.chance(0.5) else f"{m.absent_colour()} thing"
    article = "an" if name[0] in "aeiou" else "a"
    text = m.says(
        "Is there {a} {n}?",
        "Do you see {a} {n}?",
        "Can you see {a} {n}?",
        "Is {a} {n} in the picture?",
        "Is {a} {n} there?",
        a=article,
        n=name,
    )
    alike = sum(name in _names(thing) for thing in m.things)
    return text, "yes." if yes else "no.", {"thing": number} if alike < 2 else {}


def _last(m: Moment, kind: str) -> Change | None:
    found = [change for change in m.changes if change.kind == kind]
    return found[-1] if found else None


def _alone(m: Moment, change: Change) -> bool:
    """Whether nothing else happened at that moment, as it does in a cut."""
    return sum(other.time == change.time for other in m.changes) == 1


def _moved(m: Moment) -> tuple[str, str]:
    change = _last(m, "moved")
    text = m.says("What moved?", "What moved last?", "Which thing moved?", "What has moved?", "Tell me what moved.")
    return text, "nothing moved." if change is None else change_told(change)


def _way(m: Moment) -> Found | None:
    there = {thing.number: thing for thing in m.things}
    moved = [change for change in m.changes if change.kind == "moved" and change.after.number in there]
    if moved and not m.chance(0.15):
        thing = there[m.pick(moved).after.number]
        answer = [change for change in moved if change.after.number == thing.number][-1].way
    else:
        still = [thing for thing in m.things if thing.number not in {change.after.number for change in moved}]
        if not still or m.chance(0.6):
            return None
        thing, answer = m.pick(still), "it did not move"
    text = m.says(
        "Which way did the {n} move?",
        "Where did the {n} move?",
        "In which direction did the {n} move?",
        "Which way did the {n} go?",
        n=m.name(thing),
    )
    return text, f"{answer}.", {"thing": thing.number}


def _changed(m: Moment) -> tuple[str, str] | None:
    if m.changes and not _alone(m, m.changes[-1]):
        return None
    text = m.says(
        "What changed?",
        "What changed last?",
        "What has changed?",
        "What happened last in the picture?",
        "What is different now?",
        "What was the last change?",
    )
    return text, change_told(m.changes[-1]) if m.changes else "nothing changed."


def _before(m: Moment) -> Found | None:
    there = {thing.number: thing for thing in m.things}
    turned = [c for c in m.changes if c.kind == "turned" and c.after.number in there]
    turned = [c for c in turned if len(m.with_shape(c.after.shape)) == 1]
    if not turned:
        return None
    number = m.pick(turned).after.number
    change = [c for c in turned if c.after.number == number][-1]
    text = m.says(
        "What colour was the {s} before?",
        "Which colour did the {s} have before?",
        "What colour was the {s} before it turned?",
        "Which colour was the {s} earlier?",
        s=change.after.shape,
    )
    return text, f"{change.before.colour}.", {"thing": number}


def _start(m: Moment) -> tuple[str, str]:
    text = m.says(
        "What did you see at the start?",
        "What was there at first?",
        "What was in the first picture?",
        "What did you see first?",
        "What was there in the beginning?",
    )
    return text, f"{things_listed(m.at(0.0))}."


def _left(m: Moment) -> tuple[str, str] | None:
    change = _last(m, "left")
    if change is not None and not _alone(m, change):
        return None
    text = m.says("What left?", "What is gone?", "Which thing left?", "What went away?", "What left last?")
    return text, "nothing left." if change is None else f"the {change.before.name}."


SIGHTS: dict[str, Callable[[Moment], tuple[str, str] | Found | None]] = {
    "what": _what,
    "shape": _shape,
    "colour": _colour,
    "count": _count,
    "where": _where,
    "size": _size,
    "is there": _is_there,
    "moved": _moved,
    "way": _way,
    "changed": _changed,
    "before": _before,
    "start": _start,
    "left": _left,
}
