"""One stream as a language model sees it: ids, positions and what to say after each row.

In: pieces of media with their grids, questions, replies. Out: rows in the order and at the positions at which Penstock
lays them (tests/brook compares both, row by row). It does not know pictures or sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .checkpoint import PER_SECOND, SILENCE

IGNORED = -100


class StreamRows(NamedTuple):
    """A whole stream: `ids` `(n,)`, `positions` `(3, n)`, `labels` `(n,)` (what comes after each row, or -100).

    `branches` `(n,)`: 0 for the stream itself, another number for the rows of each copy of it that was asked something;
    a copy's rows see the stream's and their own. `media`: the rows that are features, as first row, kind and number of
    each piece. `said`: what was said, as its kind, first and stop row of its labels.
    """

    ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    branches: np.ndarray
    media: list[tuple[int, str, int]]
    said: list[tuple[str, int, int]]


class Vocabulary:
    """The ids of a tokenizer that a layout needs."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        name = tokenizer.convert_tokens_to_ids
        self.video, self.audio, self.image = name("<|VIDEO|>"), name("<|AUDIO|>"), name("<|IMAGE|>")
        self.sight = (name("<|vision_bos|>"), name("<|vision_eos|>"))
        self.sound = (name("<|audio_bos|>"), name("<|audio_eos|>"))
        self.end, self.silence = name("<|im_end|>"), name(SILENCE)

    def ids(self, text: str) -> list[int]:
        if text not in self._known:
            if len(self._known) > 50_000:
                self._known.clear()
            self._known[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]


class Writer:
    """Writes one stream. The state is "closed", "user" or "assistant", as in Penstock's formats."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._words = vocabulary
        self._ids: list[int] = []
        self._positions: list[np.ndarray] = []
        self._labels: list[int] = []
        self._media: list[tuple[int, str, int]] = []
        self._said: list[tuple[str, int, int]] = []
        self._branches: list[int] = []
        self._branch = 0
        self._next = 0
        self._open: tuple[str, int, int] | None = None  # an open block: kind, where it counts from, pieces in it
        self.state = "closed"

    def __len__(self) -> int:
        return len(self._ids)

    def rows(self) -> StreamRows:
        positions = np.concatenate(self._positions, axis=1)
        return StreamRows(
            np.array(self._ids), positions, np.array(self._labels), np.array(self._branches), self._media, self._said
        )

    @contextmanager
    def copy(self) -> Iterator[None]:
        """What is written meanwhile goes to a copy of the stream as it is now; the stream goes on without it."""
        kept = self._next, self._open, self.state
        self._branch = max(self._branches, default=0) + 1
        yield
        self._branch = 0
        self._next, self._open, self.state = kept

    def video(self, number: int, rows: int, columns: int) -> None:
        """Frame pair `number`, on a grid of merged fields."""
        start, index = self._begin("video", self._words.sight[0])
        time = np.full(rows * columns, index * PER_SECOND)
        down, across = np.divmod(np.arange(rows * columns), columns)
        self._lay([self._words.video] * (rows * columns), np.stack([time, down, across]) + start, "video", number)
        self._end_piece(self._words.sight[1])

    def image(self, number: int, rows: int, columns: int) -> None:
        """Picture `number`, always a block of its own."""
        self._close()
        start, _ = self._begin("image", self._words.sight[0])
        down, across = np.divmod(np.arange(rows * columns), columns)
        self._lay([self._words.image] * (rows * columns), np.stack([down * 0, down, across]) + start, "image", number)
        self._end_piece(self._words.sight[1])

    def audio(self, number: int, rows: int, new_run: bool) -> None:
        """Block `number` of sound. A new run never continues the block before it."""
        if new_run:
            self._close()
        self._begin("audio", self._words.sound[0])
        self._lay([self._words.audio] * rows, self._count(rows), "audio", number)
        self._end_piece(self._words.sound[1])

    def ask(self, question: str) -> int:
        """A question, and the start of the reply. Gives the row after the question's last word."""
        if self.state == "assistant":
            self._text("<|im_end|>\n")
        if self.state != "user":
            self._text("<|im_start|>user\n")
        self._text(question)
        behind = len(self)
        self._text("<|im_end|>\n")
        self._text("<|im_start|>assistant\n")
        self.state = "assistant"
        return behind

    def say(self, ids: list[int], then: int | None, kind: str) -> None:
        """Tokens of a reply. After the last comes `then`; None where it is not sampled."""
        first = len(self._ids) - 1
        for id in ids:
            self._labels[-1] = id
            self._lay([id], self._count(1))
        if then is not None:
            self._labels[-1] = then
        self._said.append((kind, first, len(self._ids)))

    def finish(self) -> None:
        """End the reply as `turns` does."""
        self._text("<|im_end|>\n")
        self.state = "closed"

    def _begin(self, kind: str, opening: int) -> tuple[int, int]:
        if self.state == "closed":
            self._text("<|im_start|>user\n")
            self.state = "user"
        if self._open is not None and self._open[0] != kind:
            self._close()
        if self._open is None:
            self._lay([opening], self._count(1))
            self._open = (kind, self._next, 0)
        _, start, pieces = self._open
        self._open = (kind, start, pieces + 1)
        return start, pieces

    def _end_piece(self, closing: int) -> None:
        """During a reply each piece is a block of its own."""
        self._closing = closing
        if self.state == "assistant":
            self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open = None
            self._lay([self._closing], self._count(1))

    def _text(self, text: str) -> None:
        self._close()
        ids = self._words.ids(text)
        self._lay(ids, self._count(len(ids)))

    def _count(self, count: int) -> np.ndarray:
        return np.broadcast_to(np.arange(self._next, self._next + count), (3, count))

    def _lay(self, ids: list[int], positions: np.ndarray, kind: str = "", number: int = 0) -> None:
        if kind:
            self._media.append((len(self._ids), kind, number))
        self._ids += ids
        self._positions.append(positions)
        self._labels += [IGNORED] * len(ids)
        self._branches += [self._branch] * len(ids)
        self._next = int(positions.max()) + 1
