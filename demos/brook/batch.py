"""Lessons side by side, as tensors. In: lessons. Out: what one training step takes.

Pictures and blocks of sound of all lessons stand in one row each; rows of the language model say which of them they
take. It does not know weights.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from .hints import SIZES, hints
from .layout import IGNORED, Vocabulary
from .lessons import Lesson, LessonMaker
from .senses import BLOCK_FRAMES, BLOCK_ROWS, FIELDS, block_rows, power
from .sound import RATE, Bank
from .towers import sight_labels

_LONG = 0.03  # share of long streams
# More for short answers that take two looks, less for silence, of which there is much.
_WEIGHTS = {"together": 4.0, "before": 2.0, "way": 2.0, "silent": 0.3}


class Batch(NamedTuple):
    """`ids`, `labels` and `branches` `(b, n)`, `positions` `(3, b, n)`; `pictures` `(p, 2, h, w, 3)` uint8,
    `mels` `(a, bins, BLOCK_FRAMES)` of `frames` `(a,)`; `fields` and `offsets` are what the pictures' fields hold.

    `hints` `(b, n, columns)`: see hints.py. `weights` `(b, n)`: how much each label counts.

    `video_at` and `audio_at` are rows of the flattened ids that take features; `audio_from` which of the flattened
    features of sound.
    """

    lessons: list[Lesson]
    ids: Tensor
    positions: Tensor
    labels: Tensor
    branches: Tensor
    hints: Tensor
    weights: Tensor
    pictures: Tensor
    fields: Tensor
    offsets: Tensor
    mels: Tensor
    frames: Tensor
    video_at: Tensor
    audio_at: Tensor
    audio_from: Tensor

    def to(self, device: torch.device) -> Batch:
        return self._replace(**{name: getattr(self, name).to(device) for name in self._fields if name != "lessons"})


def dice(seed: int) -> np.random.Generator:
    """For the process that draws data: the first, or only one, draws by the seed alone, each other by its own."""
    worker = get_worker_info()
    return np.random.default_rng((seed, worker.id) if worker and worker.id else seed)


class Batches(IterableDataset):
    """Batches without end, of about `rows` rows. `seconds` is the range of lengths of their streams, of which some are
    up to four times as long; lessons of about the same number of rows come together. Other numbers of processes draw
    other batches."""

    def __init__(
        self,
        seed: int,
        rows: int,
        seconds: tuple[float, float],
        bank: Bank,
        vocabulary: Vocabulary,
        banks: Tensor,
        drawn: bool,
        hard: float,
    ) -> None:
        self._seed, self._rows, self._seconds, self._drawn = seed, rows, seconds, drawn
        self._hard = hard
        self._bank, self._vocabulary, self._banks = bank, vocabulary, banks

    def __iter__(self) -> Iterator[Batch]:
        random = dice(self._seed)
        maker = LessonMaker(random, self._bank, self._vocabulary, self._hard)
        waiting: dict[int, list[Lesson]] = defaultdict(list)
        while True:
            shortest, longest = self._seconds
            if random.random() < _LONG:
                shortest, longest = longest, 4 * longest
            lesson = maker.lesson(float(np.round(random.uniform(shortest, longest), 1)))
            length = len(lesson.rows.ids)
            alike = waiting[round(8 * math.log2(length))]
            alike.append(lesson)
            if max(len(other.rows.ids) for other in alike) * len(alike) > self._rows - length / 2:
                yield collate(alike, self._banks, random if self._drawn else None)
                alike.clear()


def collate(lessons: list[Lesson], banks: Tensor, camera: np.random.Generator | None) -> Batch:
    count, longest = len(lessons), max(len(lesson.rows.ids) for lesson in lessons)
    ids = np.zeros((count, longest), np.int64)
    labels = np.full((count, longest), IGNORED, np.int64)
    branches = np.zeros((count, longest), np.int64)
    positions = np.zeros((3, count, longest), np.int64)
    inside = np.full((count, longest, len(SIZES)), IGNORED, np.int64)
    weights = np.ones((count, longest), np.float32)
    pictures, mels, frames = [], [], []
    fields, offsets = [], []
    video_at, audio_at, audio_from = [], [], []
    field_rows = np.arange(FIELDS * FIELDS)
    for number, lesson in enumerate(lessons):
        rows = lesson.rows
        length = len(rows.ids)
        ids[number, :length], labels[number, :length] = rows.ids, rows.labels
        branches[number, :length] = rows.branches
        positions[:, number, :length] = rows.positions
        inside[number, :length] = hints(lesson)
        for kind, first, stop in rows.said:
            weights[number, first:stop] = _WEIGHTS.get(kind, 1.0)
        for first, kind, piece in rows.media:
            at = number * longest + first
            if kind == "audio":
                used = block_rows(lesson.blocks[piece][1])
                audio_at.append(at + np.arange(used))
                audio_from.append((len(mels) + piece) * BLOCK_ROWS + np.arange(used))
            else:
                video_at.append(at + field_rows)
        if camera is not None:
            pictures.append(lesson.pictures(camera))
        for times in lesson.pairs:
            field, offset = sight_labels(lesson.scene, times)
            fields.append(field)
            offsets.append(offset)
        mels += blocks_of(lesson, banks)
        frames += [length for _, length in lesson.blocks]
    return Batch(
        [lesson._replace(track=None) for lesson in lessons],
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(labels),
        torch.from_numpy(branches),
        torch.from_numpy(inside),
        torch.from_numpy(weights),
        torch.from_numpy(np.concatenate(pictures)) if pictures else torch.zeros(0),
        torch.from_numpy(np.stack(fields)) if fields else torch.zeros(0, FIELDS * FIELDS, 6, dtype=torch.long),
        torch.from_numpy(np.stack(offsets)) if fields else torch.zeros(0, FIELDS * FIELDS, 2),
        torch.stack(mels) if mels else torch.zeros(0, banks.shape[1], BLOCK_FRAMES),
        torch.tensor(frames, dtype=torch.long),
        _joined(video_at),
        _joined(audio_at),
        _joined(audio_from),
    )


def blocks_of(lesson: Lesson, banks: Tensor) -> list[Tensor]:
    """Log-mel features `(bins, BLOCK_FRAMES)` of each block, floored by the loudest frame so far."""
    if lesson.track is None or not lesson.blocks:
        return []
    mel = power(lesson.track, banks)
    loudest, blocks = -math.inf, []
    for start, frames in lesson.blocks:
        first = round(start * RATE / 320)
        block = mel[:, first : first + frames]
        loudest = max(loudest, float(block.max()))
        block = (torch.clamp(block, min=loudest - 8) + 4) / 4
        blocks.append(torch.nn.functional.pad(block, (0, BLOCK_FRAMES - block.shape[1])))
    return blocks


def _joined(pieces: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(pieces)) if pieces else torch.zeros(0, dtype=torch.long)
