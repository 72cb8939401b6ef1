"""What a tensor really holds. In: a tensor, which may be quantised. Out: the plain tensors that it consists of. Knows
torch only: such tensors say themselves what is inside."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def inner(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensor itself, or numbers, scales and what else a quantised one is made of."""
    if not is_traceable_wrapper_subclass(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in inner(getattr(tensor, name))]
