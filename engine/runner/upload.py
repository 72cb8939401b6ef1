"""From the host to a device without waiting for it. In: a tensor on the host. Out: the same on the device; and which
device kernels are launched on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def upload(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values` on `device`. A plain copy to CUDA would wait for all work that is queued there; pageable memory is
    staged before this returns, so the host's tensor may be let go at once."""
    return values.to(device, non_blocking=device.type == "cuda")


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, kernels are launched on this device, where it is one of several."""
    return torch.cuda.device(device) if device.type == "cuda" and torch.cuda.is_available() else nullcontext()
