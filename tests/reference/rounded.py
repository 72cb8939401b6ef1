"""A model of plain `transformers` whose decoder attends over keys and values in eight bits. It imports nothing of the
package under test.

Keys are rounded as they are when they are attended to, turned by their positions: each head of a row alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def rounded(heads: torch.Tensor, kind: str) -> torch.Tensor:
    """Heads `(..., dim)` as eight bits hold them: "int8" in 255 equal steps, "fp8" as e4m3. Their largest number is the
    largest that there is."""
    largest = 127 if kind == "int8" else 448
    step = heads.abs().amax(-1, keepdim=True) / largest
    counted = heads / step.clamp_min(1e-30)
    return (counted.round() if kind == "int8" else counted.to(torch.float8_e4m3fn).float()) * step


@contextmanager
def rounding(model: Any, kind: str) -> Iterator[None]:
    """Within this, the model's decoder rounds."""
    inner = getattr(model.model, "language_model", getattr(model.model, "text_model", model.model))
    before, name = inner.config._attn_implementation, f"sdpa, rounded to {kind}"

    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **more: Any
    ) -> Any:
        plain: Any = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return plain(module, query, rounded(key, kind), rounded(value, kind), *args, **more)

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, sdpa_mask)
    inner.config._attn_implementation = name
    try:
        yield
    finally:
        inner.config._attn_implementation = before
