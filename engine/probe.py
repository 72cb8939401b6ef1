"""Whether a decoder computes here what it computes in the library: a prompt, appended in two pieces, against one stock
forward. In: a loaded checkpoint and its `transformers` model. Out: nothing, or ModelError that says what differs.

It finds layers that never call the replaced attention, biases and scales that are lost on the way, states that are not
keys and values, rows that see one another, and positions of another rule. It knows no families.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..codecs.errors import ModelError
from .attention import NAME
from .family import Loaded
from .language import LanguageModel
from .out_of_memory import is_out_of_memory
from .plan import Draw, Feed, Plan, TableEdit
from .span import Rows

_ROWS = 12
_PAGE = 4
# Largest error of a logit, in standard deviations of the stock logits: rounding in bf16 stays below a tenth of it.
_TOLERANCE = 0.2


def check_against_stock(loaded: Loaded, model: Any) -> None:
    """Compare a dozen ids from all over the vocabulary. `model` has the replaced attention, before and after."""
    size = loaded.text.get_input_embeddings().weight.shape[0]
    ids = np.linspace(0, size - 1, _ROWS).astype(np.int64)
    positions = np.broadcast_to(np.arange(_ROWS, dtype=np.int64), (3, _ROWS))
    inputs = {"input_ids": torch.from_numpy(ids)[None].to(model.device)}
    check_prompt(loaded, model, [Rows(ids, positions)], inputs, NAME)


def check_prompt(loaded: Loaded, model: Any, rows: list[Rows], inputs: Any, attention: str | dict[str, str]) -> None:
    """Compare the logits behind both pieces of a prompt. `rows` are what it is over pages, `inputs` what the library's
    model takes for it; `attention` is the model's, before and after."""
    try:
        ours, places = _paged(loaded, rows)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"its decoder does not run over pages: {error}") from error
    plain = "eager" if isinstance(attention, str) else {**attention, "text_config": "eager"}
    model.set_attn_implementation(plain)
    try:
        with torch.inference_mode():
            stock = model(**inputs, use_cache=False).logits[0]
    finally:
        model.set_attn_implementation(attention)
    stock = stock[places].float()
    error = float((ours - stock).abs().max() / stock.std())
    if not error <= _TOLERANCE:
        raise ModelError(
            f"its logits over pages differ from the library's by {error:.2g} standard deviations, "
            f"expected at most {_TOLERANCE}"
        )


def _paged(loaded: Loaded, rows: list[Rows]) -> tuple[torch.Tensor, list[int]]:
    """Logits `(2, vocabulary)` behind the first and behind the second piece, and the last row of each."""
    total = sum(len(run) for run in rows)
    pages, first = -(-total // _PAGE), max(1, total * 2 // 5)
    language = LanguageModel(loaded, pages, _PAGE, slots=1)
    logits = []
    edits = [TableEdit(0, 0, list(range(pages)))]
    for start, stop in ((0, first), (first, total)):
        feed = Feed(0, 0, start, _between(rows, start, stop), Draw())
        if language.run(Plan(0, [], [], [], edits, [], [], [feed])).failed:
            raise MemoryError("its trial ran out of memory")
        assert language.logits is not None
        logits.append(language.logits[0].float())
        edits = []
    for layer, keys in enumerate(language.keys):
        if not keys.any():
            raise ModelError(f"layer {layer} of {len(language.keys)} does not call the attention that was put in")
    return torch.stack(logits), [first - 1, total - 1]


def _between(rows: list[Rows], start: int, stop: int) -> list[Rows]:
    """Rows `[start, stop)` of all runs together."""
    taken, place = [], 0
    for run in rows:
        low, high = max(start - place, 0), min(stop - place, len(run))
        if low < high:
            taken.append(run.part(low, high))
        place += len(run)
    return taken
