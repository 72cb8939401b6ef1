"""Rows of a prompt that see rows behind them: which these are in the library's own forward pass, and the prompt laid so
that they do so here.

In: a model of `transformers` and a processor's output, or a prompt. Out: a rule, or the prompt in atomic runs. It knows
no families.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

from ...errors import InputError, ModelError
from ...streams.event import Seen
from ..embeddings import Embeddings, EncodedPrompt
from ..family import check_together
from ..runner.out_of_memory import is_out_of_memory
from ..runner.probe import stock_attention
from ..span import Rows

_SHUT = -1e4  # what a mask adds to the scores of rows that are not seen is below it, in every type of number


class Together(IntEnum):
    """Which rows of a prompt see one another, beside those before them; from the fewest on."""

    NONE = 0
    PIECE = 1  # those of one run of media
    MEDIA = 2  # those of all media: the rows of new media change those that are there (class F)
    PROMPT = 3  # all, words too (class F)

    @property
    def changes(self) -> bool:
        """Whether what comes later would change rows that are cached."""
        return self >= Together.MEDIA


class Ahead(NamedTuple):
    """Which rows of a prompt see rows behind them, and whether they do so only in layers with a window."""

    way: Together = Together.NONE
    in_windows: bool = False


def rows_seen(model: Any, inputs: Any, attention: str | dict[str, str]) -> dict[int | None, torch.Tensor]:
    """Which rows each row of a prompt sees in the library's own attention, `(n, n)` bool, by the window of the layers;
    empty where the library says nothing of it, and a row sees those before it. ModelError where it stops."""
    layers = [part for part in model.get_decoder().modules() if hasattr(part, "layer_idx")]
    windows = {part.layer_idx: window for part in layers if (window := getattr(part, "sliding_window", None))}
    seen: dict[int | None, torch.Tensor] = {}

    def look(module: Any, args: Any, given: dict[str, Any]) -> None:
        bound = inspect.signature(module.forward).bind_partial(*args, **given).arguments
        mask = bound.get("attention_mask", bound.get("kwargs", {}).get("attention_mask"))
        if isinstance(mask, torch.Tensor) and mask.dim() == 4:
            sees = (mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] > _SHUT).cpu()
            seen.setdefault(windows.get(module.layer_idx), sees)

    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        with stock_attention(model, attention), torch.inference_mode():
            model(**inputs, use_cache=False)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ModelError(f"the library's model fails on what its own processor makes of it: {said}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def rules(seen: dict[int | None, torch.Tensor], media: np.ndarray) -> Ahead:
    """By which rule the rows of a prompt see rows behind them. ModelError where it is yet another."""
    found = {window: rule(sees, media) for window, sees in seen.items()}
    whole = found.pop(None, None)
    narrow = {*found.values()} or {whole or Together.NONE}
    if len(narrow) == 1:
        [way] = narrow
        if whole in (None, way, Together.NONE):
            return Ahead(way, whole is Together.NONE and way is not whole)
    raise ModelError(f"in the library rows see rows behind them otherwise in other layers: {found}, {whole}")


def rule(sees: torch.Tensor, media: np.ndarray) -> Together:
    """By which rule the rows of a prompt see rows behind them. `media` `(n,)`: where its media stands. Of one run of
    media it is MEDIA, since that says nothing of others. ModelError for another rule."""
    ahead = sees.triu(1)
    if not ahead.any():
        return Together.NONE
    if torch.equal(ahead, torch.ones_like(ahead).triu(1)):
        return Together.PROMPT
    runs = torch.from_numpy(np.cumsum(np.diff(media.astype(int), prepend=0) > 0) * media)
    both = (runs[:, None] > 0) & (runs > 0)
    if torch.equal(ahead, both.triu(1)):
        return Together.MEDIA
    if torch.equal(ahead, (both & (runs[:, None] == runs)).triu(1)):
        return Together.PIECE
    block = ahead.any(0) | ahead.any(1)
    if torch.equal(ahead, (block[:, None] & block).triu(1)):
        raise ModelError("in the library its rows see later rows of media, over the words that stand between them")
    raise ModelError("in the library rows see rows behind them, neither those of one medium nor of all nor all rows")


def laid_together(
    prompt: EncodedPrompt,
    ways: dict[int, Together],
    most: int,
    embed: Callable[[torch.Tensor], torch.Tensor],
) -> EncodedPrompt:
    """The prompt with rows that see one another in atomic runs, `ways` by the placeholder of each kind. `embed`: the
    rows of words. `most`: as `FamilyData.most_together`. InputError where words stand between media that see one
    another, and where these are more rows."""
    way = max(ways.values(), default=Together.NONE)
    if way is Together.NONE:
        return prompt
    if way is Together.PROMPT:
        return _within(_one_run(prompt, embed), most)
    count = sum(part is not None for part in prompt.embeds)
    if way is Together.MEDIA and count > 1:
        raise InputError(
            f"media: expected one piece or pieces side by side, whose rows see one another in this model, got {count} "
            f"with words between them"
        )
    marks = [id for id, own in ways.items() if own is not Together.NONE]
    rows = [
        msgspec.structs.replace(run, atomic=run.seen is not None and bool(np.isin(run.ids, marks).any()))
        for run in prompt.rows
    ]
    return _within(prompt._replace(rows=rows), most)


def _within(prompt: EncodedPrompt, most: int) -> EncodedPrompt:
    check_together("prompt", max((len(run) for run in prompt.rows if run.atomic), default=0), most)
    return prompt


def _one_run(prompt: EncodedPrompt, embed: Callable[[torch.Tensor], torch.Tensor]) -> EncodedPrompt:
    """All of it as one atomic run of media, its words embedded."""
    ids, positions = (
        np.concatenate(parts, -1) for parts in zip(*((r.ids, r.positions) for r in prompt.rows), strict=True)
    )
    made = [
        embed(torch.from_numpy(run.ids)) if part is None else part.rows
        for run, part in zip(prompt.rows, prompt.embeds, strict=True)
    ]
    if any(part is not None and part.deep is not None for part in prompt.embeds):
        raise ModelError("expected rows for the decoder's first layer alone where all rows see one another")
    shown = tuple(dict.fromkeys(piece for run in prompt.shown for piece in run))
    run = Rows(ids, positions, None, Seen(1, "prompt", None, None), atomic=True)
    return prompt._replace(rows=[run], embeds=[Embeddings(torch.cat(made))], shown=[shown])
