"""Where the tests of this folder compute: on the device with `-m gpu`, else on the CPU."""

from __future__ import annotations

import os

import torch

# Set by tests/conftest.py where no device is asked for.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")
