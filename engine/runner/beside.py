"""What some decoders take beside the rows that they are given, made of the ids of these rows: kinds of rows (a number
for each id), and small embeddings for every layer (Gemma 3n and 4). In: ids. Out: arguments of the library's decoder.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from ..family import Loaded

_PER_LAYER = "per_layer_inputs"


class Beside:
    """`names`: of the arguments; a decoder that has none takes rows alone."""

    def __init__(self, loaded: Loaded) -> None:
        text = loaded.text
        weight = text.get_input_embeddings().weight
        self._types = {name: table.to(weight.device) for name, table in loaded.types.items()}
        self._embed = text.get_per_layer_inputs if has_layer_words(text, loaded.config) else None
        self._marks = torch.tensor(sorted(loaded.marks), dtype=torch.int64, device=weight.device)
        self._empty = getattr(loaded.config, "pad_token_id", None) or 0
        self.names = {*self._types, *([] if self._embed is None else [_PER_LAYER])}

    def __call__(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of rows with these ids `(n,)`, as the batch's one sequence."""
        made = {name: table[ids][None] for name, table in self._types.items()}
        if self._embed is not None:
            if len(self._marks):  # rows of media are no words: they have what padding has
                ids = ids.masked_fill((ids[:, None] == self._marks).any(1), self._empty)
            made[_PER_LAYER] = self._embed(ids[None])
        return made


def has_layer_words(text: Any, config: Any) -> bool:
    """Whether each layer of the decoder `text` has embeddings of its own for the words."""
    takes = _PER_LAYER in inspect.signature(text.forward).parameters
    return takes and bool(getattr(config, "hidden_size_per_layer_input", 0))
