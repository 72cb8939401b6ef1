"""Questions about sound, and about sound and pictures together. In: a moment. Out: a question, its right answer; None
where the moment gives no cause for one.
"""

from __future__ import annotations

from collections.abc import Callable

from .moment import NO_THING, Found, Moment
from .narration import UNKNOWN, listed, things_listed
from .world import COLOURS, NUMBERS, WORDS, Sound


def _sound_name(sound: Sound) -> str:
    return f"a {sound.value} beep." if sound.kind == "beep" else f"the word {sound.value}."


def _heard(m: Moment) -> tuple[str, str]:
    text = m.says(
        "What did you hear last?",
        "What was the last sound?",
        "What did you hear just now?",
        "Which sound came last?",
        "What was that sound?",
        "What do you hear?",
    )
    if not m.sounds:
        return text, "nothing."
    last = m.sounds[-1]
    return text, UNKNOWN if last.kind == "other" else _sound_name(last)


def _word(m: Moment) -> tuple[str, str]:
    text = m.says(
        "What word did you hear last?",
        "What was said?",
        "What did they say?",
        "Which word was said last?",
        "What did the voice say?",
        "What was the last word?",
    )
    if not m.words:
        return text, "nothing."
    return text, UNKNOWN if m.words[-1].kind == "other" else f"{m.words[-1].value}."


def _words(m: Moment) -> tuple[str, str] | None:
    if len(m.words) > 3 or any(word.kind == "other" for word in m.words):
        return None
    text = m.says("Which words did you hear?", "What words were said?", "Tell me all the words.", "List the words.")
    return text, f"{listed([word.value for word in m.words])}."


def _beeps(m: Moment) -> tuple[str, str] | None:
    pitch = m.pick(("", "", "high ", "low "))
    number = sum(not pitch or beep.value == pitch.strip() for beep in m.beeps)
    if number > 6:
        return None
    text = m.says(
        "How many {p}beeps were there?",
        "How many {p}beeps did you hear?",
        "Count the {p}beeps.",
        "How many {p}beeps have you heard?",
        "How often did it beep?" if not pitch else "How many {p}beeps came?",
        p=pitch,
    )
    return text, f"{NUMBERS[number]}."


def _pitch(m: Moment) -> tuple[str, str]:
    text = m.says(
        "Was the last beep high or low?",
        "Was the beep high or low?",
        "How high was the last beep?",
        "What kind of beep was the last one?",
    )
    return text, f"{m.beeps[-1].value}." if m.beeps else "there was no beep."


def _first(m: Moment) -> tuple[str, str] | None:
    moments: dict[str, float] = {}
    for sound in m.sounds:
        moments.setdefault("the beep" if sound.kind == "beep" else "the word", sound.start)
    for change in m.changes:
        if change.kind == "came" and len(m.with_shape(change.after.shape)) == 1:
            if change.after.shape not in {thing.shape for thing in m.at(0.0)}:
                moments.setdefault(f"the {change.after.shape}", change.time)
    names = ["the beep", "the word", *(name for name in moments if name not in ("the beep", "the word"))]
    pair = [names[int(i)] for i in m.random.permutation(len(names))[:2]]
    known = [name for name in pair if name in moments]
    if len(known) < 2 and m.chance(0.6):
        return None
    if len(known) == 2 and abs(moments[pair[0]] - moments[pair[1]]) < 1.2:
        return None
    text = m.says(
        "Which came first, {a} or {b}?",
        "What came first, {a} or {b}?",
        "What was first, {a} or {b}?",
        "Was {a} first or {b}?",
        a=pair[0],
        b=pair[1],
    )
    return text, f"{min(known, key=moments.__getitem__)}." if known else "neither."


def _together(m: Moment) -> Found | None:
    draw = m.random.random()
    if draw < 0.4:
        return _when_heard(m)
    said = [word for word in m.words if word.kind == "word"]
    if not said or said[-1] is not m.words[-1]:
        return None
    word = said[-1].value
    if word in COLOURS:
        things = m.with_colour(word)
        if len(things) > 1 or (not things and m.chance(0.5)):
            return None
        text = m.says(
            "What shape has the colour that was said?",
            "Which thing has the colour that was said?",
            "Which shape has the colour you heard?",
        )
        finds = {"said": WORDS.index(word), "thing": things[0].number if things else NO_THING}
        return text, f"{things[0].shape}." if things else "none.", finds
    number = NUMBERS.index(word)
    if number != len(m.things) and m.chance(0.8):
        return None
    text = m.says(
        "Is the number that was said the number of things?",
        "Did they say how many things there are?",
        "Is the number you heard the number of things you see?",
    )
    finds = {"said": WORDS.index(word), "things": len(m.things)}
    return text, "yes." if number == len(m.things) else "no.", finds


def _when_heard(m: Moment) -> Found | None:
    """What was there when the only beep, or a word, was heard."""
    sounds = [*(m.beeps if len(m.beeps) == 1 else ()), *(w for w in m.words if w.kind == "word")]
    sounds = [s for s in sounds if s.kind == "beep" or sum(w.value == s.value for w in m.words) == 1]
    calm = [s for s in sounds if all(c.stop < s.start - 0.9 or c.start > s.stop + 0.6 for c in m.changes)]
    if not calm:
        return None
    sound = m.pick(calm)
    name = "the beep" if sound.kind == "beep" else sound.value
    text = m.says(
        "What was there when you heard {n}?", "What did you see when you heard {n}?", "What was there at {n}?", n=name
    )
    return text, f"{things_listed(m.at(sound.start))}.", {"moment": sound.start}


SOUNDS: dict[str, Callable[[Moment], tuple[str, str] | None]] = {
    "heard": _heard,
    "word": _word,
    "words": _words,
    "beeps": _beeps,
    "pitch": _pitch,
}
TOGETHER: dict[str, Callable[[Moment], tuple[str, str] | Found | None]] = {"first": _first, "together": _together}
