"""From the host to a device and back without waiting for it. In: a tensor. Out: the same on the other side; and which
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


def to_host(values: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory. That of a CUDA tensor is pinned and made in the order of the device's own work: only
    what is queued after it may read it."""
    if values.device.type != "cuda":
        return values.cpu()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, kernels are launched on this device, where it is one of several."""
    return torch.cuda.device(device) if device.type == "cuda" and torch.cuda.is_available() else nullcontext()
