"""Spans and rows, on their way from the towers to the language model.

Plain data that names embeddings and holds none: these stay where a tower made them, in the span store of the runner
(runner/spans.py). It knows no streams and no pages. A stream keeps one of these for each token, so the collector of
garbage does not walk over them (`gc=False`): they cannot be part of a cycle.
"""

from __future__ import annotations

import msgspec
import numpy as np

from ..streams.event import Seen


class Stored(msgspec.Struct, frozen=True, gc=False):
    """Rows `[start, stop)` of entry `id` of the span store; each takes `row_bytes`.

    Entries below 0 are the model's own and are never let go.
    """

    id: int
    start: int
    stop: int
    row_bytes: int

    @property
    def nbytes(self) -> int:
        return (self.stop - self.start) * self.row_bytes

    def part(self, start: int, stop: int) -> Stored:
        """Rows `[start, stop)` of these."""
        return Stored(self.id, self.start + start, self.start + stop, self.row_bytes)


class Turn(msgspec.Struct, frozen=True, gc=False):
    """Somebody has stopped to speak: a reply begins, drawn with `seed` where the request has none. `number` counts the
    turns of a stream's user."""

    number: int
    seed: int


class Span(msgspec.Struct, frozen=True, eq=False, tag="span"):
    """A segment after its encoder: `n` rows that still need positions.

    `ids` is `(n,)` int64, the placeholder ids. `grid` is (temporal patches, height, width) in merged patches, (0, 0, 0)
    for sound; `audio_rows` of the rows, the last ones, are sound. `run` is the run of sound it belongs to. `before` and
    `after` are ids that stand around these rows alone, as their time; such a span never counts on from the one before
    it. `stored` names its embeddings, once the store has them. `content` as in `Rows`. `clip_fps` as in `VideoSegment`.
    `places` `(3, n)` is where its rows stand by a rule of the model's own, counted from where the span begins, and what
    follows stands `behind` that far on; None: the rule of its kind of block counts.

    A span without ids stands for a piece that was dropped (`Encoder.passed`), or with a `turn` for the place where a
    reply begins.
    """

    seq: int
    index: int
    modality: str
    ids: np.ndarray
    grid: tuple[int, int, int]
    audio_rows: int
    run: int
    start_us: int | None
    stop_us: int | None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    stored: Stored | None = None
    content: bytes | None = None
    clip_fps: float | None = None
    turn: Turn | None = None
    places: np.ndarray | None = None
    behind: int = 0

    @property
    def seen(self) -> Seen:
        return Seen(self.seq, self.modality, self.start_us, self.stop_us)


class Rows(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Rows with their places, ready to be fed: `ids` `(n,)`, `positions` `(3, n)` int64. `stored` names the embeddings
    of media; None: the ids are embedded.

    `seen` names the span they are, None for text and wrappers. An `atomic` run may not be cut between two steps.
    `content` stands for all of the media that the embeddings were made of and for the way in which they were: two runs
    of media with equal content, ids and positions are the same. Empty for text; None: it is not known. `mark`: text
    that stands "before" or "after" media, and goes with it.
    """

    ids: np.ndarray
    positions: np.ndarray
    stored: Stored | None = None
    seen: Seen | None = None
    atomic: bool = False
    content: bytes | None = b""
    mark: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Memory that it takes, with the embeddings that it names."""
        return self.ids.nbytes + self.positions.nbytes + (0 if self.stored is None else self.stored.nbytes)

    def part(self, start: int, stop: int) -> Rows:
        """Rows `[start, stop)` of these."""
        stored = None if self.stored is None else self.stored.part(start, stop)
        ids, positions = self.ids[start:stop], self.positions[:, start:stop]
        return Rows(ids, positions, stored, self.seen, self.atomic, self.content, self.mark)


class Look(msgspec.Struct, frozen=True, gc=False):
    """Of a stream whose media is read by cross-attention: words from row `first` on, up to where the next look begins,
    see rows `[begin, stop)` of its media, of which a row of the cache holds some (runner/crossing.py). `own`: these
    come before the words; else the library lets words see media behind them, and they take nothing of it but that."""

    first: int
    begin: int
    stop: int
    own: bool = True


class Prompt(msgspec.Struct, frozen=True, eq=False, tag="prompt"):
    """A whole prompt as the model's own processor and position code lay it out: for one-shot requests. `looks`: where
    media is read by cross-attention, what words see of it, in order. Its rows come first, up to the first look."""

    rows: list[Rows]
    looks: tuple[Look, ...] = ()
