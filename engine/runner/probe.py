"""Whether a decoder computes here what it computes in the library: a prompt, appended in two pieces, against one stock
forward. In: a loaded checkpoint and its `transformers` model. Out: nothing, or ModelError that says what differs.

It finds layers that never call the replaced attention, biases and scales that are lost on the way, states that are not
keys and values, rows that see one another, and positions of another rule. It knows no families.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ...errors import ModelError
from ..embeddings import EncodedPrompt
from ..family import Loaded
from ..logits import SHUT, LogitRule, logit_rule
from ..plan import Draw, Feed, Plan, StateUse, TableEdit
from ..span import Rows
from .attention import NAME
from .language import LanguageModel
from .out_of_memory import is_out_of_memory

_ROWS = 12
_PAGE = 4
# Largest error of a logit, in standard deviations of the stock logits. In float32 rounding is far below it.
_TOLERANCE = 0.2
# In 16 bits a trained model's own rounding may be larger. Then this many times the library's own error is allowed.
_AS_FAR = 2.0


def check_against_stock(loaded: Loaded, model: Any, attention: str | dict[str, str] = NAME) -> LogitRule:
    """Compare a dozen ids from all over the vocabulary, from its middle on, since rows at its ends may be empty.
    `attention` is the model's, before and after. Returns what it does with its logits."""
    size = loaded.text.get_input_embeddings().weight.shape[0]
    ids = np.roll(np.linspace(0, size - 1, _ROWS).astype(np.int64), _ROWS // 2)
    positions = np.broadcast_to(np.arange(_ROWS, dtype=np.int64), (3, _ROWS))
    inputs = {"input_ids": torch.from_numpy(ids)[None].to(model.device)}
    return check_prompt(loaded, model, EncodedPrompt([Rows(ids, positions)], [None]), inputs, attention)


def check_prompt(
    loaded: Loaded, model: Any, prompt: EncodedPrompt, inputs: Any, attention: str | dict[str, str]
) -> LogitRule:
    """Compare the logits after both pieces of a prompt. `prompt` is what it is over pages, `inputs` what the library's
    model takes for it; `attention` is the model's, before and after. Returns what the model does with its logits."""
    stops = _stops(prompt.rows)
    try:
        ours = _paged(loaded, prompt, stops)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"its decoder does not run over pages: {error}") from error
    rows = [stop - 1 for stop in stops]
    whole, layer = _stock_and_layer(loaded.head, model, inputs, attention)
    loaded = loaded._replace(drawn=logit_rule(layer, whole, loaded.config))
    ours, stock = loaded.drawn(ours), whole[rows]
    error = _error(ours, stock)
    if not error <= _TOLERANCE and not _is_rounding(ours, stock, model, inputs, attention, rows):
        if error == float("inf") and _shuts(stock):
            raise ModelError("the library shuts out words by their logits, which does not happen over pages")
        cause = _cause(loaded, model, prompt, inputs, attention)
        raise ModelError(
            f"its logits over pages differ from the library's by {error:.2g} standard deviations, "
            f"expected at most {_TOLERANCE}{cause and f': {cause}'}"
        )
    return loaded.drawn


def _stops(rows: list[Rows]) -> list[int]:
    """Where the pieces of a prompt end: about two fifths are the first, but an atomic run stays whole."""
    total, start = sum(len(run) for run in rows), 0
    cut = max(1, total * 2 // 5)
    for run in rows:
        stop = start + len(run)
        if run.atomic and start < cut < stop:
            cut = start or stop
        start = stop
    return sorted({cut, total})


def _is_rounding(
    ours: torch.Tensor,
    stock: torch.Tensor,
    model: Any,
    inputs: Any,
    attention: str | dict[str, str],
    rows: list[int],
) -> bool:
    """Whether the logits of a 16-bit model after these rows are about as near to those of a float32 copy as the
    library's own, `stock`, are. False where such a copy finds no room."""
    if model.dtype not in (torch.bfloat16, torch.float16):
        return False
    try:
        wide = copy.deepcopy(model).float()
        widened = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
        exact = _stock(wide, widened, attention)[rows]
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return False
        raise
    return _error(ours, exact) <= _AS_FAR * _error(stock, exact)


def _cause(loaded: Loaded, model: Any, prompt: EncodedPrompt, inputs: Any, attention: str | dict[str, str]) -> str:
    """Why the logits are likely to differ, by what the library gives for less or for other positions; empty where it
    runs neither. The head are the rows before the first medium, of words alone one row."""
    takes, rows = inspect.signature(loaded.text.forward).parameters, prompt.rows
    beside = [name for name in inputs if name in takes and name not in ("input_ids", "attention_mask")]
    if beside:
        return f"its decoder takes {', '.join(beside)} beside the rows"
    seen = next((place for place, part in enumerate(prompt.embeds) if part is not None), None)
    head = 1 if seen is None else sum(len(run) for run in rows[:seen])
    total = sum(len(run) for run in rows)
    what = "one row" if seen is None else "the words before the picture"
    counted = torch.arange(total, device=model.device)[None]
    try:
        whole = _stock(model, inputs, attention)
        if head:
            alone = _stock(model, {"input_ids": inputs["input_ids"][:, :head]}, attention)
            if not _error(_paged(loaded, prompt, [head]), alone[-1:]) <= _TOLERANCE:
                by = ", so neither attention nor positions do it" if head == 1 else ""
                return f"{what} alone differ{'s' * (seen is None)}{by}"
            if not _error(alone, whole[:head]) <= _TOLERANCE:
                return "in the library rows see rows behind them"
        if seen is None:
            return "one row alone does not differ, so attention or positions do it"
        moved = _stock(model, {**inputs, "position_ids": counted}, attention)
        if _error(_paged(loaded, prompt, [total]), moved[-1:]) <= _TOLERANCE:
            return "its positions are not counted one by one from the picture on"
        return f"{what} do not differ, so the picture's own rows do it" if head else ""
    except Exception:  # whatever a model raises that takes none of this: the refusal stands without a cause
        return ""


def _shuts(logits: torch.Tensor) -> bool:
    """Whether the same words are shut out in all rows."""
    shut = logits.float() <= SHUT
    return bool(shut.any() and (shut == shut[0]).all())


def _error(ours: torch.Tensor, stock: torch.Tensor) -> float:
    """The largest difference, in standard deviations of the stock logits; of those that may be drawn, which have to be
    the same ones in both."""
    ours, stock = ours.float(), stock.float()
    drawn = stock > SHUT
    if not torch.equal(drawn, ours > SHUT):
        return float("inf")
    return float((ours[drawn] - stock[drawn]).abs().max() / stock[drawn].std())


def _stock(model: Any, inputs: Any, attention: str | dict[str, str]) -> torch.Tensor:
    """The library's logits `(rows, vocabulary)`, by its own attention."""
    with stock_attention(model, attention), torch.inference_mode():
        return model(**inputs, use_cache=False).logits[0]


def _stock_and_layer(
    head: torch.nn.Module, model: Any, inputs: Any, attention: str | dict[str, str]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The same, and what the output layer gave for it; None where the model does not call that."""
    gave: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        gave.append(output)

    hook = head.register_forward_hook(keep)
    try:
        logits = _stock(model, inputs, attention)
    finally:
        hook.remove()
    return logits, gave[-1].reshape(-1, gave[-1].shape[-1]) if gave else None


@contextlib.contextmanager
def stock_attention(model: Any, attention: str | dict[str, str]) -> Iterator[None]:
    """Inside, the decoder attends by the library's own plainest way. `attention` is the model's, before and after."""
    plain = "eager"
    if not isinstance(attention, str):
        plain = {part: "eager" if way == NAME else way for part, way in attention.items()}
    model.set_attn_implementation(plain)
    try:
        yield
    finally:
        model.set_attn_implementation(attention)


def _paged(loaded: Loaded, prompt: EncodedPrompt, stops: list[int]) -> torch.Tensor:
    """Logits `(pieces, vocabulary)` after each piece of a prompt that is appended up to these stops."""
    pages = -(-stops[-1] // _PAGE)
    language = LanguageModel(loaded, pages, _PAGE, slots=1)
    rows, logits = language.spans.prompt(prompt).rows, []
    edits = [TableEdit(0, 0, list(range(pages)))]
    for start, stop in zip([0, *stops], stops, strict=False):
        use = StateUse(0 if start else None, ((stop - start, 1 if start else 0),))
        feed = Feed(0, 0, start, _between(rows, start, stop), Draw(), states=use, looks=prompt.looks)
        if language.run(Plan(0, [], [], edits, [], [], [feed])).failed:
            raise MemoryError("its trial ran out of memory")
        assert language.logits is not None
        logits.append(language.logits[0].float())
        edits = []
    for layer, keys in enumerate(language.cache.keys):
        if keys.numel() and not keys.any():
            raise ModelError(f"layer {layer} of {len(language.cache.keys)} does not call the attention that was put in")
    return torch.stack(logits)


def _between(rows: list[Rows], start: int, stop: int) -> list[Rows]:
    """Rows `[start, stop)` of all runs together."""
    taken, place = [], 0
    for run in rows:
        low, high = max(start - place, 0), min(stop - place, len(run))
        if low < high:
            taken.append(run.part(low, high))
        place += len(run)
    return taken
