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

from ..runner.groups import control_groups


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
        free = "" if self.free_bytes is None else f", {amount(self.free_bytes)} free"
        return f"{self.word:16} {self.name}{free}"


def amount(count: int) -> str:
    """Bytes for people."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


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
        return Computer("compute", "mps", _processor(), free_bytes("mps"))
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


def free_bytes(device: str) -> int | None:
    """Bytes that may still be had on "cuda:0", "mps" or "cpu"; None where nothing says so. Loads torch off the CPU."""
    if device == "cpu":
        return _free_memory()
    import torch

    if device == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch gives it again
    return torch.cuda.mem_get_info(device)[0] + kept


def _free_memory() -> int | None:
    """Bytes that may be had without swapping and inside the limits of this process's control groups, where the system
    says."""
    try:
        match = re.search(r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    if match is not None:
        return min([int(match[1]) * 1024, *group_room()])
    pages = "SC_AVPHYS_PAGES"
    if hasattr(os, "sysconf") and pages in os.sysconf_names:
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    return None


def group_room(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What each control group (version 2) around this process leaves it, in bytes; file caches count as free."""
    found = []
    for folder in control_groups(proc, root):
        try:
            most, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
            caches = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        except OSError:
            continue
        if most != "max":
            found.append(max(0, int(most) - used + (int(caches[1]) if caches else 0)))
    return found
