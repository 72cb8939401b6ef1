"""What can compute here. In: this machine and its torch. Out: each kind of device, with free memory, or why it is not
there. It knows no models.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

import msgspec


class Computer(msgspec.Struct, frozen=True):
    """One device that torch may compute on: "cuda:0", "mps", "cpu". `why` says why it is not there, else None."""

    kind: str
    word: str
    name: str = ""
    free_bytes: int | None = None
    why: str | None = None

    def __str__(self) -> str:
        if self.why is not None:
            return f"{self.word:16} not here: {self.why}"
        free = "" if self.free_bytes is None else f", {self.free_bytes / 2**30:.1f} GiB free"
        return f"{self.word:16} {self.name}{free}"


def computers() -> list[Computer]:
    """cuda, mps and cpu, in the order in which one would take them. Loads torch."""
    return [*_cuda(), _mps(), _cpu()]


def _cuda() -> list[Computer]:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return [Computer("compute", "cuda", why=f"torch {torch.__version__} is built without CUDA")]
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return [Computer("compute", "cuda", why=str(error).splitlines()[0])]
    return [
        Computer("compute", f"cuda:{n}", torch.cuda.get_device_name(n), torch.cuda.mem_get_info(n)[0])
        for n in range(torch.cuda.device_count())
    ]


def _mps() -> Computer:
    import torch

    if torch.backends.mps.is_available():
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return Computer("compute", "mps", _processor(), free)
    if sys.platform != "darwin":
        return Computer("compute", "mps", why="only on macOS")
    built = torch.backends.mps.is_built()
    return Computer("compute", "mps", why="needs macOS 14 on Apple silicon" if built else "torch is built without it")


def _cpu() -> Computer:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Computer("compute", "cpu", f"{_processor()}, {cores} core{'s' * (cores > 1)}", _free_memory())


def _processor() -> str:
    try:
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()


def _free_memory() -> int | None:
    """Bytes that may be had without swapping, where the system says."""
    try:
        match = re.search(r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None
