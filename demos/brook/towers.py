"""Teaches the towers alone, before the language model is there: what is in each field, what is heard in each row.

In: scenes. Out: weights of the two towers, with small heads that read their features; the heads are thrown away. Dense
labels (every field of every picture, every row of sound) teach in minutes what answers alone would teach in hours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .senses import BLOCK_ROWS, FIELDS, HOP, block_rows
from .sound import RATE
from .start import SCALE, concepts
from .world import COLOURS, SHAPES, SIZES, WORDS, Scene, Thing

HEARD = ("nothing", "low", "high", *WORDS, "other")
_NONE = -100


class SightHeads(nn.Module):
    """Read the features of one field: the thing whose centre lies in it, in the second and in the first frame."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.kinds = nn.Linear(hidden, 2 * (len(SHAPES) + len(COLOURS) + len(SIZES) + 4))
        self.offset = nn.Linear(hidden, 2)
        self.foreign = nn.Linear(hidden, 1)

    def loss(self, features: Tensor, labels: Tensor, offsets: Tensor, foreign: Tensor) -> Tensor:
        """`labels` `(n, fields, 6)`, `offsets` `(n, fields, 2)` with NaN where nothing is, `foreign` `(n,)`."""
        sizes = [len(SHAPES) + 2, len(COLOURS) + 1, len(SIZES) + 1] * 2  # one shape more: a foreign picture
        pieces = self.kinds(features).float().split(sizes, -1)
        weights = (1.0, 1.0, 0.5, 0.5, 0.5, 0.25)
        total = features.new_zeros((), dtype=torch.float)
        for number, (piece, weight) in enumerate(zip(pieces, weights, strict=True)):
            balance = torch.ones(piece.shape[-1])
            balance[0] = 0.3
            total = total + weight * functional.cross_entropy(
                piece.flatten(0, 1), labels[..., number].flatten(), balance, ignore_index=_NONE
            )
        known = ~offsets.isnan()
        if known.any():
            total = total + functional.mse_loss(self.offset(features).float()[known], offsets[known])
        guess = self.foreign(features.mean(1)).float().squeeze(-1)
        return total + 0.5 * functional.binary_cross_entropy_with_logits(guess, foreign)

    @torch.no_grad()
    def right(self, features: Tensor, labels: Tensor) -> list[float]:
        """Share of fields with something in them that are read right: shape, colour, size, twice."""
        sizes = [len(SHAPES) + 2, len(COLOURS) + 1, len(SIZES) + 1] * 2  # one shape more: a foreign picture
        shares = []
        for number, piece in enumerate(self.kinds(features).split(sizes, -1)):
            label = labels[..., number]
            some = label > 0
            shares.append(float((piece.argmax(-1) == label)[some].float().mean()))
        return shares


def sight_labels(scene: Scene, times: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Labels `(fields, 6)` and offsets `(fields, 2)` of a frame pair; shape, colour and size count from 1."""
    labels = np.zeros((FIELDS * FIELDS, 6), np.int64)
    offsets = np.full((FIELDS * FIELDS, 2), np.nan, np.float32)
    for frame, time in ((1, times[0]), (0, times[1])):
        if scene.foreign_at(time):
            labels[:, 3 * frame] = len(SHAPES) + 1
        for thing in scene.at(time):
            if not (0 <= thing.x < 1 and 0 <= thing.y < 1):
                continue
            field = int(thing.y * FIELDS) * FIELDS + int(thing.x * FIELDS)
            labels[field, 3 * frame : 3 * frame + 3] = _kinds(thing)
            if not frame:
                offsets[field] = (thing.x * FIELDS % 1 - 0.5, thing.y * FIELDS % 1 - 0.5)
    return labels, offsets


def _kinds(thing: Thing) -> tuple[int, int, int]:
    return SHAPES.index(thing.shape) + 1, COLOURS.index(thing.colour) + 1, SIZES.index(thing.size) + 1


class Oracle(nn.Module):
    """Features of fields straight from their labels: what a tower that sees everything would give.

    They are fixed, and lie where the words for them lie at the start (start.py): the language model learns to read them
    while the tower learns to give them. What was there in the first frame of a pair is told half as loud.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(9)
        known = concepts(hidden)
        foreign = torch.randn(hidden, generator=dice) * SCALE
        empty = torch.randn(hidden, generator=dice) * SCALE / 2
        now = [
            torch.stack([empty, *(known[word] for word in words), *more])
            for words, more in ((SHAPES, [foreign]), (COLOURS, []), (SIZES, []))
        ]
        before = [torch.randn(table.shape, generator=dice) * SCALE / 2 for table in now]
        self.kinds = nn.ModuleList(nn.Embedding.from_pretrained(table) for table in (*now, *before))
        self.places = nn.Embedding.from_pretrained(torch.randn(FIELDS * FIELDS, hidden, generator=dice) * SCALE)
        self.offset = nn.Linear(2, hidden)
        nn.init.normal_(self.offset.weight, std=SCALE, generator=dice)
        nn.init.zeros_(self.offset.bias)
        self.requires_grad_(False)

    def forward(self, labels: Tensor, offsets: Tensor) -> Tensor:
        """`labels` `(n, fields, 6)`, `offsets` `(n, fields, 2)` to `(n, fields, hidden)`."""
        features = self.places.weight + sum(table(labels[..., i]) for i, table in enumerate(self.kinds))
        return features + self.offset(offsets.nan_to_num()) * ~offsets[..., :1].isnan()


class HearingHeads(nn.Module):
    """Read a row of sound: what is heard in it, by the vectors of the words for it; and whether it begins there."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        known = concepts(hidden)
        dice = torch.Generator().manual_seed(10)
        words = [
            torch.zeros(hidden),
            *(known[word] for word in HEARD[1:-1]),
            torch.randn(hidden, generator=dice) * SCALE,
        ]
        self.kind = nn.Linear(hidden, len(HEARD))
        self.kind.weight = nn.Parameter(torch.stack(words), requires_grad=False)
        self.onset = nn.Linear(hidden, 2)

    def loss(self, features: Tensor, kinds: Tensor, onsets: Tensor) -> Tensor:
        """`kinds` and `onsets` `(n, BLOCK_ROWS)`, -100 where a row means nothing."""
        balance = torch.ones(len(HEARD))
        balance[0] = 0.3
        kind = functional.cross_entropy(
            self.kind(features).float().flatten(0, 1), kinds.flatten(), balance, ignore_index=_NONE
        )
        onset = functional.cross_entropy(
            self.onset(features).float().flatten(0, 1), onsets.flatten(), ignore_index=_NONE
        )
        return kind + 0.5 * onset

    @torch.no_grad()
    def right(self, features: Tensor, kinds: Tensor) -> list[float]:
        """Share of rows read right: those with a sound, those without."""
        same = self.kind(features).argmax(-1) == kinds
        return [float(same[kinds > 0].float().mean()), float(same[kinds == 0].float().mean())]


def hearing_labels(scene: Scene, start: float, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Kinds and onsets `(BLOCK_ROWS,)` of the block of `frames` that begins at `start`."""
    rows = block_rows(frames)
    kinds = np.full(BLOCK_ROWS, _NONE, np.int64)
    onsets = kinds.copy()
    kinds[:rows] = onsets[:rows] = 0
    width = 4 * HOP / RATE
    for sound in scene.sounds:
        value = HEARD.index(sound.value)
        first, last = (sound.start - start) / width, (sound.stop - start) / width
        for row in range(max(int(np.floor(first + 0.5)), 0), min(int(np.floor(last + 0.5)), rows)):
            kinds[row] = value
        begin = int(np.floor(first + 0.5))
        if 0 <= begin < rows:
            onsets[begin] = 1
    return kinds, onsets
