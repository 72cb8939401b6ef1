"""What towers make: embeddings of media, and spans and prompts with theirs, before the span store takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from .span import Look, Rows, Span


class Embeddings(NamedTuple):
    """Rows of media for the decoder: `rows` `(n, hidden)`. `deep` `(k, n, hidden)` is added after each of its first k
    layers, or before them, as the decoder has it (DeepStack, arXiv 2406.04334); None where the model has none."""

    rows: torch.Tensor
    deep: torch.Tensor | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes that one row takes."""
        total = self.rows.nbytes + (0 if self.deep is None else self.deep.nbytes)
        return total // max(1, len(self.rows))

    def part(self, which: Any) -> Embeddings:
        """The rows of a slice or a mask `(n,)`."""
        return Embeddings(self.rows[which], None if self.deep is None else self.deep[:, which])

    def to(self, place: torch.dtype | torch.device) -> Embeddings:
        return Embeddings(self.rows.to(place), None if self.deep is None else self.deep.to(place))

    def finite(self) -> torch.Tensor:
        """Whether all numbers are finite, as a tensor."""
        rows = self.rows.isfinite().all()
        return rows if self.deep is None else rows & self.deep.isfinite().all()


def joined(pieces: Iterable[Embeddings]) -> Embeddings:
    """Pieces one after the other; where only some have `deep`, that of the others is 0."""
    pieces = list(pieces)
    rows = torch.cat([piece.rows for piece in pieces])
    depth = max((len(piece.deep) for piece in pieces if piece.deep is not None), default=0)
    if not depth:
        return Embeddings(rows)
    deep = [piece.rows.new_zeros(depth, *piece.rows.shape) if piece.deep is None else piece.deep for piece in pieces]
    return Embeddings(rows, torch.cat(deep, 1))


def by_layer(parts: dict[int, torch.Tensor]) -> Embeddings:
    """Rows that are 0, with what is added at each of these layers, `(n, hidden)`."""
    first = next(iter(parts.values()))
    none = torch.zeros_like(first)
    return Embeddings(none, torch.stack([parts.get(layer, none) for layer in range(max(parts) + 1)]))


class EncodedSpan(NamedTuple):
    """A span that names no embeddings yet, and these."""

    span: Span
    embeds: Embeddings


# What the towers make of the media of a prompt: modality, placeholder id, and rows in parts as the tower gives them.
Features = list[tuple[str, int, list[Embeddings]]]


class EncodedPrompt(NamedTuple):
    """A whole prompt: its rows, and the embeddings of each run of media; None for text.

    `shown`: the pieces of media of which each run has rows, (place in `Content.media`, rows of the whole piece) each.
    Empty: nothing is said of them. `features`: what the towers made, for another prompt with the same media; None: they
    made nothing, or nothing that can be used again. `ready`: the place at which, instead of the row that is there, each
    of the rows stands that were made elsewhere (`Content.ready`). `looks` as in `Prompt`.
    """

    rows: list[Rows]
    embeds: list[Embeddings | None]
    shown: Sequence[tuple[tuple[int, int], ...]] = ()
    features: Features | None = None
    ready: Sequence[int] = ()
    looks: tuple[Look, ...] = ()
