"""How far keys and queries of a decoder turn with their positions, so that rows can count as standing elsewhere without
being computed once more.

In: a loaded checkpoint. Out: a `Turning`, or ModelError. Whether keys of this very checkpoint really turn like that is
tried at load: the same row at two positions has to give keys that differ by the turn between them, in every layer. A
model with learned positions fails that, and so does one whose rotary positions follow some other rule.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from ...errors import ModelError
from ..family import Loaded
from ..plan import Feed
from ..span import Rows
from .angles import LongRotary, Turning, rotaries
from .attention import Turn
from .language import LanguageModel, chunks_of
from .out_of_memory import is_out_of_memory

log = logging.getLogger("penstock.engine")

# Where the row stands first, and how much farther then.
_FIRST, _FARTHER = 3, (1, 617, 20_011)
# How far the library's own float32 angles may be off, at such positions, beside a rounding of the keys.
_OFF = 2e-3


@torch.no_grad()
def with_turning(loaded: Loaded) -> Loaded:
    """`loaded` with its turning; where it has none, as it was, and the family says why no stream of it may slide."""
    if loaded.family.no_window:
        return loaded
    try:
        turning = turning_of(loaded)
        if loaded.fast is None:
            loaded.text.rotary_emb = LongRotary(loaded.text.rotary_emb, loaded.family.max_positions)
        return loaded._replace(turning=turning)
    except (AttributeError, IndexError, KeyError, ModelError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        how = "its rotary positions cannot be read as those of Llama's kind"
        why = str(error) if isinstance(error, ModelError) else f"{how} ({error})"
        log.info("streams of this model have no window: %s", why)
        loaded.family.no_window = why
        return loaded


def turning_of(loaded: Loaded) -> Turning:
    """How this checkpoint's rows turn. ModelError that says what they do otherwise."""
    if chunks_of(loaded.config):
        raise ModelError("some layers see chunks of rows, which are counted from a stream's first row on")
    layers, keys, offs = rotaries(loaded.text, loaded.family.data.axes, loaded.family.max_positions), _keys(loaded), []
    for halves, last in ((True, False), (False, False), (True, True), (False, True)):
        turning = Turning(layers, halves, last)
        offs.append(_off(turning, keys, loaded.device))
        if offs[-1] <= _OFF + 2 * torch.finfo(loaded.dtype).eps:
            return turning
    raise ModelError(f"expected keys that turn with their positions, got some that are off by {min(offs):.2g}")


def _keys(loaded: Loaded) -> list[tuple[int, list[torch.Tensor]]]:
    """The keys `(kv_heads, dim)` of one row in each layer, and how much farther it stands than the first of them."""
    farthest = loaded.family.data.max_positions - 1 - _FIRST
    places = [0, *sorted({min(step, farthest) for step in _FARTHER})]
    language = LanguageModel(loaded, len(places), 1, slots=len(places))
    for slot in range(len(places)):
        language.cache.tables[slot] = slot
    middle = language.embed.weight.shape[0] // 2
    rows = [Rows(np.array([middle]), np.full((3, 1), _FIRST + place)) for place in places]
    with torch.inference_mode():
        language._forward([Feed(slot, slot, 0, [row], None) for slot, row in enumerate(rows)])
    return [(place, [keys[slot, 0] for keys in language.cache.keys]) for slot, place in enumerate(places)]


def _off(turning: Turning, keys: list[tuple[int, list[torch.Tensor]]], device: torch.device) -> float:
    """How far the keys of the rows that stand farther are from the first ones', turned; of their size."""
    (_, first), *others = keys
    worst = 0.0
    for place, farther in others:
        turns: list[Turn] = turning(torch.tensor([place], device=device))
        for key, wanted, turn in zip(first, farther, turns, strict=True):
            gap = turn(key[None])[0].float() - wanted.float()
            worst = max(worst, float(gap.norm() / wanted.float().norm().clamp(min=1e-9)))
    return worst
