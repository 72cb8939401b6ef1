"""The kinds of media that a model of `transformers` takes: what stands for each in a text, and what encodes it. In: a
model and its processor. Out: `Sense` by kind, or why there is none. It runs nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# What `mm_token_type_ids` of the library's processors calls each kind.
KINDS = {"image": 1, "video": 2, "audio": 3}
# What a tower takes first, by kind, under the names that processors give it.
_MAIN = {
    "image": ("pixel_values", "pixel_values_images"),
    "video": ("pixel_values_videos",),
    "audio": ("input_features", "input_values", "audio_input_features"),
}


class Sense(NamedTuple):
    """One kind of media. `token` stands for a piece of it in a text, and `id` for each of its rows. `encode` is the
    model's own method, `takes` what it takes, by name."""

    kind: str
    token: str
    id: int
    encode: Callable[..., Any]
    takes: frozenset[str]

    def given(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What of a processor's output the tower takes; nothing where no medium of this kind is there."""
        given = {name: value for name, value in inputs.items() if name in self.takes and value is not None}
        return given if any(name in given for name in _MAIN[self.kind]) else {}


def find_senses(model: Any, processor: Any) -> tuple[dict[str, Sense], dict[str, str]]:
    """The kinds that this model takes by its classes, and for each other kind what is missing."""
    senses, missing = {}, {}
    for kind in KINDS:
        found = _find(kind, model, processor)
        if isinstance(found, str):
            missing[kind] = found
        else:
            senses[kind] = found
    return senses, missing


def _find(kind: str, model: Any, processor: Any) -> Sense | str:
    config, name = model.config, f"get_{kind}_features"
    parts = (getattr(model, "model", model), model)
    token = getattr(processor, f"{kind}_token", None)
    if not isinstance(token, str):
        return f"expected {kind}_token on its {type(processor).__name__}, got none"
    names = (f"{kind}_token_id", f"{kind}_token_index")
    id = next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)
    if id is None:
        return f"expected {kind}_token_id on its {type(config).__name__}, got none"
    for part in parts:
        encode = getattr(part, name, None)
        takes = frozenset(inspect.signature(encode).parameters) if encode is not None else frozenset()
        if takes.intersection(_MAIN[kind]):
            return Sense(kind, token, id, encode, takes)
    return f"expected {name} on its {type(parts[0]).__name__}, got none"
