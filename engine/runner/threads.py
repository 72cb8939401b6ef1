"""How many threads compute. Comes in: the configuration, the environment and what the machine gives; goes out: one
number, which torch and the CPU attention then use."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import msgspec
import torch

from ...errors import ModelError
from ..config import EngineConfig
from .groups import control_groups

VARIABLE = "PENSTOCK_THREADS"
_OPENMP = "OMP_NUM_THREADS"
_SETTING = threading.Lock()


class Threads(msgspec.Struct, frozen=True):
    """How many compute, and why so many."""

    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.count} compute: {self.why}"


def choose_threads(config: EngineConfig) -> Threads:
    """`config.threads`, else $PENSTOCK_THREADS, else what torch has: OMP_NUM_THREADS, or one for each core, but no more
    than the control groups of this process let run at once. Raises ModelError for what is no such number."""
    given = str(config.threads) if config.threads else os.environ.get(VARIABLE, "")
    if given:
        name = "threads" if config.threads else f"${VARIABLE}"
        if not given.isdecimal() or int(given) < 1:
            raise ModelError(f"{name}: expected a whole number of at least 1, got {given!r}")
        return Threads(int(given), f"as {name} says")
    has = torch.get_num_threads()
    if _OPENMP in os.environ:
        return Threads(has, f"as ${_OPENMP} says")
    cores = granted_cores()
    granted = has if cores is None else max(1, math.floor(cores))
    if cores is not None and granted <= has:
        return Threads(granted, f"the control group gives {cores:g} cores")
    return Threads(has, "one for each core" if has == os.cpu_count() else "as torch has it")


def compute_threads(config: EngineConfig) -> int:
    """The number that `choose_threads` gives; it is torch's own from now on, in the whole process."""
    count = choose_threads(config).count
    torch.set_num_threads(count)
    return count


def granted_cores(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many cores the control groups (version 2) around this process give it at most; None: no such limit."""
    found = []
    for folder in control_groups(proc, root):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except OSError:
            continue
        if quota != "max":
            found.append(int(quota) / int(period))
    return min(found, default=None)


def compute_alone() -> None:
    """Torch computes alone in this thread from now on, whatever the number of the others.

    A thread that computes with others keeps them for itself, and the cores are for those of the model. Torch's number
    is that of the calling thread and of threads which begin later: for these it is set back, by one that ends at once.
    """
    with _SETTING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(before,))
        other.start()
        other.join()
