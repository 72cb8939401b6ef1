"""How many threads compute. Comes in: the configuration and the environment; goes out: one number, which torch and the
CPU attention then use."""

from __future__ import annotations

import os
import threading

import torch

from ...errors import ModelError
from ..config import EngineConfig

VARIABLE = "PENSTOCK_THREADS"
_SETTING = threading.Lock()


def compute_threads(config: EngineConfig) -> int:
    """`config.threads`, else $PENSTOCK_THREADS, else what torch has (OMP_NUM_THREADS, or one for each core).

    Sets torch's own number to it, which holds for the whole process. Raises ModelError for what is no such number.
    """
    given = str(config.threads) if config.threads else os.environ.get(VARIABLE, "")
    if not given:
        return torch.get_num_threads()
    if not given.isdecimal() or int(given) < 1:
        name = "threads" if config.threads else f"${VARIABLE}"
        raise ModelError(f"{name}: expected a whole number of at least 1, got {given!r}")
    torch.set_num_threads(int(given))
    return int(given)


def compute_alone() -> None:
    """Torch computes alone in this thread from now on, whatever the number of the others.

    A thread that computes with others keeps them for itself, awake for a while after each loop; the cores are for those
    of the model. Torch's number is the calling thread's and that of threads which begin later: for these it is set back
    by one that ends at once.
    """
    with _SETTING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(before,))
        other.start()
        other.join()
