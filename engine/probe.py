"""Whether a decoder computes here what it computes in the library: a few rows, appended in two pieces, against one
stock forward. In: a loaded checkpoint and its `transformers` model. Out: nothing, or ModelError that says what differs.

It finds layers that never call the replaced attention, biases and scales that are lost on the way, and states that are
not keys and values. It knows no families.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..codecs.errors import ModelError
from .attention import NAME
from .family import Loaded
from .language import LanguageModel
from .plan import Draw, Feed, Plan, TableEdit
from .span import Rows

_ROWS, _FIRST = 12, 5
_PAGE = 4
# Largest error of a logit, in standard deviations of the stock logits: rounding in bf16 stays below a tenth of it.
_TOLERANCE = 0.2


def check_against_stock(loaded: Loaded, model: Any) -> None:
    """Compare the logits behind both pieces. `model` has the replaced attention, before and after."""
    size = loaded.text.get_input_embeddings().weight.shape[0]
    ids = np.linspace(0, size - 1, _ROWS).astype(np.int64)
    try:
        ours = _paged(loaded, ids)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"its decoder does not run over pages: {error}") from error
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            stock = model(input_ids=torch.from_numpy(ids)[None].to(model.device), use_cache=False).logits[0]
    finally:
        model.set_attn_implementation(NAME)
    stock = stock[[_FIRST - 1, _ROWS - 1]].float()
    error = float((ours - stock).abs().max() / stock.std())
    if not error <= _TOLERANCE:
        raise ModelError(
            f"its logits over pages differ from the library's by {error:.2g} standard deviations, "
            f"expected at most {_TOLERANCE}"
        )


def _paged(loaded: Loaded, ids: np.ndarray) -> torch.Tensor:
    """Logits `(2, vocabulary)` behind the first and behind the second piece."""
    language = LanguageModel(loaded, -(-_ROWS // _PAGE), _PAGE, slots=1)
    positions = np.broadcast_to(np.arange(_ROWS, dtype=np.int64), (3, _ROWS))
    logits = []
    edits = [TableEdit(0, 0, list(range(-(-_ROWS // _PAGE))))]
    for start, stop in ((0, _FIRST), (_FIRST, _ROWS)):
        feed = Feed(0, 0, start, [Rows(ids[start:stop], positions[:, start:stop])], Draw())
        language.run(Plan(0, [], [], [], edits, [], [], [feed]))
        assert language.logits is not None
        logits.append(language.logits[0].float())
        edits = []
    for layer, keys in enumerate(language.keys):
        if not keys.any():
            raise ModelError(f"layer {layer} of {len(language.keys)} does not call the attention that was put in")
    return torch.stack(logits)
