"""Spans and rows, on their way from the towers to the language model.

Plain data that holds tensors; knows no streams and no pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..streams.event import Seen

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any  # what only names tensors needs no torch


class Span(msgspec.Struct, frozen=True, eq=False, tag="span"):
    """A segment after its encoder: `n` rows that still need positions.

    `ids` is `(n,)` int64, the placeholder ids; `embeds` is `(n, hidden)`, or `(n, hidden * (1 + k))` where the tower
    also gives what is added after each of the decoder's first k layers (DeepStack, arXiv 2406.04334). `grid` is
    (temporal patches, height, width) in merged patches, (0, 0, 0) for sound; `audio_rows` of the rows, the last ones,
    are sound. `run` is the run of sound it belongs to. `before` and `after` are ids that stand around these rows alone,
    as their time; such a span never counts on from the one before it.
    """

    seq: int
    index: int
    modality: str
    ids: np.ndarray
    embeds: Tensor
    grid: tuple[int, int, int]
    audio_rows: int
    run: int
    start_us: int | None
    stop_us: int | None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @property
    def seen(self) -> Seen:
        return Seen(self.seq, self.modality, self.start_us, self.stop_us)


class Rows(msgspec.Struct, frozen=True, eq=False):
    """Rows with their places, ready to be fed: `ids` `(n,)`, `positions` `(3, n)` int64, `embeds` as a span has them
    or None.

    `seen` names the span they are, None for text and wrappers. An `atomic` run may not be cut between two steps.
    """

    ids: np.ndarray
    positions: np.ndarray
    embeds: Tensor | None = None
    seen: Seen | None = None
    atomic: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Host memory that it holds."""
        return self.ids.nbytes + self.positions.nbytes + (0 if self.embeds is None else self.embeds.nbytes)

    def part(self, start: int, stop: int) -> Rows:
        """Rows `[start, stop)` of these."""
        embeds = None if self.embeds is None else self.embeds[start:stop]
        return Rows(self.ids[start:stop], self.positions[:, start:stop], embeds, self.seen, self.atomic)


class Prompt(msgspec.Struct, frozen=True, eq=False, tag="prompt"):
    """A whole prompt as the model's own processor and position code lay it out: for one-shot requests."""

    rows: list[Rows]
