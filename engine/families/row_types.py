"""What some decoders are told of each row beside the row itself, such as whether it is of a picture: numbers that a
processor makes from ids. In: what processors gave. Out: a table by id, which every later prompt has to follow. It knows
no families.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from ...errors import ModelError

_OWN = ("input_ids", "attention_mask", "position_ids")


class RowTypes:
    """The tables of one decoder by the names of its arguments, `(words,)` int64 each. While it is `learning`, ids that
    it sees for the first time get their numbers; then those that were never seen have 0."""

    def __init__(self, decoder: Any, placeholders: Sequence[int]) -> None:
        """`placeholders`: ids that may be behind those of all words."""
        self._takes = inspect.signature(decoder.forward).parameters
        self._words = max(len(decoder.get_input_embeddings().weight), *(id + 1 for id in placeholders))
        self._known = torch.zeros(self._words, dtype=torch.bool)
        self.learning = True
        self.tables: dict[str, torch.Tensor] = {}

    def follow(self, inputs: Any) -> None:
        """ModelError where a processor's output has other numbers than the tables have for its ids."""
        ids = inputs["input_ids"][0].cpu()
        for name in self._names(inputs) if self.learning else ():
            table = self.tables.setdefault(name, torch.zeros(self._words, dtype=torch.int64))
            fresh = ~self._known[ids]
            table[ids[fresh]] = inputs[name][0].cpu()[fresh].long()
        self._known[ids] = True
        for name, table in self.tables.items():
            numbers = inputs[name][0].cpu() if name in inputs else torch.zeros_like(ids)
            other = table[ids] != numbers
            if other.any():
                id, got = int(ids[other][0]), int(numbers[other][0])
                raise ModelError(f"{name}: expected {int(table[id])} for rows of id {id}, got {got}")

    def _names(self, inputs: Any) -> list[str]:
        shape = inputs["input_ids"].shape
        beside = [name for name in inputs if name in self._takes and name not in _OWN]
        return [name for name in beside if isinstance(inputs[name], torch.Tensor) and inputs[name].shape == shape]
