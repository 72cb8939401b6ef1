"""Where the kernel is tested: on the device, where there is one, else in Triton's interpreter on the CPU."""

from __future__ import annotations

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
