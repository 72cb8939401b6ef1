"""Whether the layers of a quantised checkpoint run here: their kernels take some shapes only, and say so when they are
called. In: a loaded checkpoint. Out: nothing; or ModelError with what they say. Nothing is compared.
"""

from __future__ import annotations

from typing import Any

import torch

from ...errors import ModelError
from ...streams.segment import SizeRule
from ...streams.size import fit
from ..families.absent import AbsentTowers
from ..family import Loaded
from ..runner.language import LanguageModel
from ..runner.out_of_memory import is_out_of_memory
from .worst import first_step, linear_layers, pieces

_ROWS = 12
# The side of a picture before it is made as large as the model takes at least.
_SIDE = 64


def check_runs(loaded: Loaded) -> None:
    """Run a few rows, where the decoder has its weights, and one small piece of each kind of media, where the towers
    have theirs."""
    hooks = [layer.register_forward_hook(_check_type) for layer in linear_layers([loaded.text])]
    try:
        if not loaded.text.get_input_embeddings().weight.is_meta:
            LanguageModel(loaded, 1, _ROWS, slots=1).run(first_step(1, _ROWS, _ROWS))
        if not isinstance(loaded.towers, AbsentTowers):
            with torch.inference_mode():
                for piece in pieces(loaded.family.spec, _small):
                    loaded.towers.encode([(0, piece)])
            loaded.towers.forget(0)
    except ModelError:
        raise
    except Exception as error:  # whatever a kernel raises over shapes that it does not take
        if is_out_of_memory(error):
            raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"expected quantised layers that run here, got: {why}") from error
    finally:
        for hook in hooks:
            hook.remove()


def _check_type(layer: Any, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
    """Keys and values are kept in the model's type, and rows are added up in it."""
    if out.dtype != given[0].dtype:
        raise ModelError(f"expected quantised layers that give {given[0].dtype} for it, got {out.dtype}")


def _small(rule: SizeRule) -> tuple[int, int]:
    return fit(rule, _SIDE, _SIDE) if rule.factor > 1 else (_SIDE, _SIDE)
