"""What some decoders take beside the rows that they are given: kinds of rows (a number for each id), small embeddings
for every layer (Gemma 3n and 4), and how many rows are before each (Llama 4). In: ids and positions. Out: arguments of
the library's decoder.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from ..family import Loaded
from .upload import upload

_PER_LAYER, _CACHE = "per_layer_inputs", "past_key_values"


class Beside:
    """`names`: of the arguments; a decoder that has none takes rows alone."""

    def __init__(self, loaded: Loaded) -> None:
        text = loaded.text
        weight = text.get_input_embeddings().weight
        self._types = {name: upload(table, weight.device) for name, table in loaded.types.items()}
        self._embed = text.get_per_layer_inputs if has_layer_words(text, loaded.config) else None
        self._marks = upload(torch.tensor(sorted(loaded.marks), dtype=torch.int64), weight.device)
        self._counts = bool(getattr(loaded.config, "attn_temperature_tuning", False))
        self._empty = getattr(loaded.config, "pad_token_id", None) or 0
        more = {_PER_LAYER: self._embed is not None, _CACHE: self._counts}
        self.names = {*self._types, *(name for name, taken in more.items() if taken)}

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor) -> dict[str, Any]:
        """Of rows with these ids `(n,)` at positions `(3, n)`, as the batch's one sequence."""
        made: dict[str, Any] = {name: table[ids][None] for name, table in self._types.items()}
        if self._embed is not None:
            if len(self._marks):  # rows of media are no words: they have what padding has
                ids = ids.masked_fill((ids[:, None] == self._marks).any(1), self._empty)
            made[_PER_LAYER] = self._embed(ids[None])
        if self._counts:
            made[_CACHE] = _Counted(positions[0])
        return made


class _Counted:
    """In place of the library's cache, which a decoder of Llama 4 asks for the number of rows before the first of a
    pass: here that many are before each row, whatever stream it is of. It keeps no rows."""

    def __init__(self, places: torch.Tensor) -> None:
        self._before = places - torch.arange(len(places), device=places.device)

    def get_seq_length(self, layer: int = 0) -> torch.Tensor:
        return self._before

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return keys, values


def has_layer_words(text: Any, config: Any) -> bool:
    """Whether each layer of the decoder `text` has embeddings of its own for the words."""
    takes = _PER_LAYER in inspect.signature(text.forward).parameters
    return takes and bool(getattr(config, "hidden_size_per_layer_input", 0))
