"""How many threads compute. Comes in: the configuration, the environment and what the machine gives, at start and while
it runs; goes out: one number, which torch and the CPU attention then use."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from ...errors import ModelError
from ..config import EngineConfig
from .groups import control_groups

VARIABLE = "PENSTOCK_THREADS"
_OPENMP = "OMP_NUM_THREADS"
_SETTING = threading.Lock()
# Seconds of computing after which a crew looks at how long its threads have waited; the shares of that time from which
# there are fewer of them and below which there are more.
_WINDOW_S, _CROWDED, _FREE = 0.25, 0.45, 0.1
# Windows in a row that decide: crowded ones for fewer threads, free ones for more. The latter double each time when
# there are fewer, up to the last number: so seldom the threads of a machine that stays busy are tried in vain.
_CROWDED_WINDOWS, _FREE_WINDOWS, _MOST_WINDOWS = 2, 2, 16


class Threads(msgspec.Struct, frozen=True):
    """How many compute, and why so many. `said`: a person has said so, and the number stays."""

    count: int
    why: str
    said: bool = False

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
        return Threads(int(given), f"as {name} says", said=True)
    has = torch.get_num_threads()
    if _OPENMP in os.environ:
        return Threads(has, f"as ${_OPENMP} says", said=True)
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

    A thread that computes with others keeps them for itself, and the cores are for those of the model.
    """
    compute_with(1)


def compute_with(count: int) -> None:
    """Torch computes with `count` threads in this thread from now on, whatever the number of the others.

    Torch's number is that of the calling thread and of threads which begin later: for these it is set back, by one that
    ends at once.
    """

    def run(work: Callable[[], None]) -> None:
        other = threading.Thread(target=work)
        other.start()
        other.join()

    before: list[int] = []
    with _SETTING:
        run(lambda: before.append(torch.get_num_threads()))
        torch.get_num_threads()  # a thread that has never asked would take the others' number when it first computes
        torch.set_num_threads(count)
        run(lambda: torch.set_num_threads(before[0]))


class Crew:
    """How many threads compute, 1 to `most`. Where they wait for cores that others use there are half as many: a thread
    that waits holds all others up, at each layer. Where the cores are free again there are twice as many.

    `waited`: how many seconds the threads that compute have waited for a core so far; None where that is not known, and
    then the number stays. Not for several threads.
    """

    def __init__(self, most: int, waited: Callable[[], float | None] | None = None) -> None:
        self.count = self._most = most
        self._waited = waited or waited_s
        self._before: float | None = None
        self._busy_s = 0.0
        self._crowded = self._free = 0  # windows in a row
        self._enough = _FREE_WINDOWS

    def computed(self, seconds: float) -> bool:
        """They have computed so long. Whether there is another number of them now."""
        if self._most == 1:
            return False
        if self._before is None:
            self._before = self._waited()
            return False
        self._busy_s += seconds
        if self._busy_s < _WINDOW_S:
            return False
        waited, self._before = self._before, self._waited()
        busy_s, self._busy_s = self._busy_s, 0.0
        return self._before is not None and self._decide((self._before - waited) / (busy_s * self.count))

    def _decide(self, share: float) -> bool:
        self._crowded = self._crowded + 1 if share > _CROWDED else 0
        self._free = self._free + 1 if share < _FREE else 0
        count = self.count
        if self._crowded >= _CROWDED_WINDOWS and count > 1:
            self.count = count // 2
            self._enough = min(2 * self._enough, _MOST_WINDOWS)
        elif self._free >= self._enough and count < self._most:
            self.count = min(2 * count, self._most)
        elif self._free >= _MOST_WINDOWS:
            self._enough = _FREE_WINDOWS
        if self.count == count:
            return False
        self._crowded = self._free = 0
        return True


def waited_s(tasks: Path = Path("/proc/self/task")) -> float | None:
    """How many seconds the calling thread, and those of this process that are not Python's, have waited for a core;
    None where the system does not say."""
    others = {thread.native_id for thread in threading.enumerate()} - {threading.get_native_id()}
    waited_ns: list[int] = []
    for stat in tasks.glob("*/schedstat"):
        if int(stat.parent.name) not in others:
            with contextlib.suppress(OSError):  # it has just ended
                waited_ns.append(int(stat.read_text().split()[1]))
    return sum(waited_ns) / 1e9 if waited_ns else None
