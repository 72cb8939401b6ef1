"""What the language model shall have found out half-way up, row by row, taught beside the answers.

In: a lesson. Out: labels for its rows of pictures and sound: what happened in a field since the pair before, which
colour its thing had before and which way it moved last, how many things, beeps, words and pairs of frames there have
been; for the rows of an answer what it hangs on: the pair that the question means, the word that was said, the thing
that it is about, which is to be found from its name on. Small heads read them from the middle of the model and are
thrown away. An answer teaches one row; these teach all, and answers then only have to look them up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from . import world
from .lessons import Lesson
from .moment import NO_THING
from .senses import FIELDS, HOP, block_rows
from .sound import RATE
from .world import COLOURS, MOST_THINGS, SHAPES, WAYS, WORDS, Scene, Thing

TAPS = (2, 3, 4)  # layers below the heads: for the number of a pair, for what a question means, and for all
EVENTS = ("nothing", "came", "left", *(f"moved {way}" for way in WAYS), "turned")
MOST_COUNTED = 7
MOST_PAIRS = 16
# Columns of the labels, and how many classes each has.
SIZES = {
    "event": len(EVENTS),
    "shape gone": len(SHAPES),
    "colour gone": len(COLOURS),
    "colour before": len(COLOURS) + 1,
    "way": len(WAYS) + 1,
    "things": MOST_THINGS + 1,
    "beeps": MOST_COUNTED + 1,
    "high": MOST_COUNTED + 1,
    "low": MOST_COUNTED + 1,
    "words": MOST_COUNTED + 1,
    "pair": MOST_PAIRS,
    "pair meant": MOST_PAIRS,
    "said": len(WORDS),
    "field": FIELDS * FIELDS + 1,
    "shape meant": len(SHAPES),
    "colour meant": len(COLOURS),
    "size meant": len(world.SIZES),
}
_EARLY, _MIDDLE = ("pair", "field"), ("pair meant", "said", "field")
_MOSTLY_NONE = ("event", "colour before", "way")
_COLUMNS = {name: number for number, name in enumerate(SIZES)}
_NONE = -100
_ROW_SECONDS = 4 * HOP / RATE


class HintHeads(nn.Module):
    """Linear heads: one for each column, and some further down. A pair is looked up by its number, so rows have to know
    theirs first, then the end of a question the one that it means, and then the answer what was there. So with a word
    that was said: first which, then where there is something of that colour, then its shape. A thing that is named is
    found first, and then what it is like."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.early = nn.Linear(hidden, sum(SIZES[name] for name in _EARLY))
        self.middle = nn.Linear(hidden, sum(SIZES[name] for name in _MIDDLE))
        self.heads = nn.Linear(hidden, sum(SIZES.values()))

    def loss(self, early: Tensor, middle: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """`early`, `middle` and `rows` `(b, n, hidden)` at the taps, `labels` `(b, n, columns)`; classes that say that
        nothing is there count less."""
        total = rows.new_zeros((), dtype=torch.float)
        for head, hidden, names in (
            (self.early, early, _EARLY),
            (self.middle, middle, _MIDDLE),
            (self.heads, rows, tuple(SIZES)),
        ):
            columns = labels[..., [_COLUMNS[name] for name in names]]
            known = (columns != _NONE).any(-1)
            pieces = head(hidden[known]).float().split([SIZES[name] for name in names], -1)
            for piece, label, name in zip(pieces, columns[known].unbind(-1), names, strict=True):
                if (label != _NONE).any():
                    weights = piece.new_ones(piece.shape[-1])
                    weights[0] = 0.2 if name in _MOSTLY_NONE else 1.0
                    total = total + functional.cross_entropy(piece, label, weights, ignore_index=_NONE)
        return total


def hints(lesson: Lesson) -> np.ndarray:
    """Labels `(n, columns)` of a lesson's rows; -100 where nothing is to be said."""
    labels = np.full((len(lesson.rows.ids), len(SIZES)), _NONE, np.int64)
    seen = -1  # the newest pair so far
    for first, kind, piece in lesson.rows.media:
        if kind == "audio":
            start, frames = lesson.blocks[piece]
            rows = labels[first : first + block_rows(frames)]
            for name, counts in _counted(lesson.scene, start, len(rows)):
                rows[:, _COLUMNS[name]] = counts
        else:
            seen = piece
            rows = labels[first : first + FIELDS * FIELDS]
            if not lesson.scene.foreign_at(lesson.pairs[piece][1]):
                before = lesson.pairs[piece - 1][1] if piece else None
                _seen(rows, lesson.scene, before, lesson.pairs[piece][1])
        if 0 <= seen < MOST_PAIRS:
            rows[:, _COLUMNS["pair"]] = seen
    for first, stop, finds in lesson.found:
        for name, found in _to_find(lesson, first, finds):
            if 0 <= found < SIZES[name]:
                labels[first:stop, _COLUMNS[name]] = found
    return labels


def _to_find(lesson: Lesson, first: int, finds: Mapping[str, float]) -> Iterator[tuple[str, int]]:
    """Columns and labels for what has to be found out from row `first` on."""
    for name, found in finds.items():
        if name == "moment":
            yield "pair meant", _pair_at(lesson.pairs, found)
        elif name == "thing":
            shown = sum(row < first and kind == "video" for row, kind, _ in lesson.rows.media)
            yield from _meant(lesson, shown - 1, found)
        else:
            yield name, int(found)


def _pair_at(pairs: list[tuple[float, float]], time: float) -> int:
    """The newest pair that begins by `time`; -1 where there is none."""
    return sum(start <= time for start, _ in pairs) - 1


def _meant(lesson: Lesson, pair: int, number: float) -> Iterator[tuple[str, int]]:
    """Columns and labels for a thing in a pair: 1 + its field, 0 for no thing; and what it is like."""
    if number == NO_THING:
        yield "field", 0
        return
    for thing in lesson.scene.at(lesson.pairs[pair][1]):
        if thing.number == number and (field := _field(thing)) is not None:
            yield "field", 1 + field
            yield "shape meant", SHAPES.index(thing.shape)
            yield "colour meant", COLOURS.index(thing.colour)
            yield "size meant", world.SIZES.index(thing.size)


def _counted(scene: Scene, start: float, rows: int) -> Iterator[tuple[str, np.ndarray]]:
    times = start + (np.arange(rows) + 1.5) * _ROW_SECONDS
    beeps = [sound for sound in scene.sounds if sound.kind == "beep"]
    for name, sounds in (
        ("beeps", beeps),
        ("high", [beep for beep in beeps if beep.value == "high"]),
        ("low", [beep for beep in beeps if beep.value == "low"]),
        ("words", [sound for sound in scene.sounds if sound.kind != "beep"]),
    ):
        stops = np.array([sound.stop for sound in sounds])
        yield name, np.minimum(np.searchsorted(stops, times, side="right"), MOST_COUNTED)


def _seen(labels: np.ndarray, scene: Scene, before: float | None, now: float) -> None:
    """Fill the labels `(fields, columns)` of the pair that ends at `now`; the pair before ended at `before`."""
    labels[:, [_COLUMNS[name] for name in _MOSTLY_NONE]] = 0
    labels[:, _COLUMNS["things"]] = len(scene.settled(now))
    there = {thing.number: _field(thing) for thing in scene.at(now)}
    for change in scene.changes_until(now):
        field = there.get(change.after.number)
        if change.kind == "turned" and field is not None:
            labels[field, _COLUMNS["colour before"]] = COLOURS.index(change.before.colour) + 1
        elif change.kind == "moved" and field is not None:
            labels[field, _COLUMNS["way"]] = tuple(WAYS).index(change.way) + 1
    if before is None:
        return
    were = {thing.number: _field(thing) for thing in scene.at(before)}
    for change in scene.changes_until(now):
        if change.time <= before:
            continue
        number = change.after.number
        field = were.get(number) if change.kind == "left" else there.get(number)
        if field is None:
            continue
        labels[field, _COLUMNS["event"]] = EVENTS.index(f"{change.kind} {change.way}".strip())
        if change.kind == "left":
            labels[field, _COLUMNS["shape gone"]] = SHAPES.index(change.before.shape)
            labels[field, _COLUMNS["colour gone"]] = COLOURS.index(change.before.colour)


def _field(thing: Thing) -> int | None:
    if not (0 <= thing.x < 1 and 0 <= thing.y < 1):
        return None
    return int(thing.y * FIELDS) * FIELDS + int(thing.x * FIELDS)
