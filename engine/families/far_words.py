"""Ids behind the ids of the text's own words: in Gemma 3n those that the projectors of towers embed, in Nemotron 3.5
Transcribe the placeholder of sound.

In: a model of `transformers`. Out: the same model, with input embeddings that give what the whole model gives for every
id. It knows no processors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def with_far_words(model: Any, placeholders: Iterable[int]) -> None:
    """Give the model such embeddings, if it has projectors that embed words, or placeholders behind its words."""
    inner = getattr(model, "model", model)
    projectors = [part for part in inner.children() if hasattr(part, "vocab_offset") and hasattr(part, "embedding")]
    if projectors:
        model.set_input_embeddings(FarWords(model.get_input_embeddings(), projectors))
    elif max(placeholders) >= len(model.get_input_embeddings().weight):
        model.set_input_embeddings(NoWords(model.get_input_embeddings()))


class FarWords(torch.nn.Module):
    """`words` embeds all ids but those of the `projectors`, which say themselves where theirs begin."""

    def __init__(self, words: Any, projectors: list[Any]) -> None:
        super().__init__()
        self.words = words
        self._projectors = tuple(projectors)  # no parts of it: they belong to the towers

    @property
    def weight(self) -> torch.Tensor:
        return self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows `(..., hidden)` of ids."""
        rows = self.words(ids)
        for projector in self._projectors:
            first = projector.vocab_offset
            own = (ids >= first) & (ids < first + projector.vocab_size)
            made = projector(input_ids=torch.where(own, ids, first))
            rows = torch.where(own[..., None], made.to(rows.dtype), rows)
        return rows


class NoWords(torch.nn.Module):
    """`words` embeds all ids but those behind its own, which stand for media and have the row of the first word."""

    def __init__(self, words: Any) -> None:
        super().__init__()
        self.words = words

    @property
    def weight(self) -> torch.Tensor:
        return self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows `(..., hidden)` of ids."""
        return self.words(torch.where(ids < len(self.weight), ids, 0))
