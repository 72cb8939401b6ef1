"""How many threads compute: what is said, else what the machine gives; and what they do while they wait."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.runner import threads
from penstock.engine.runner.threads import (
    Crew,
    choose_threads,
    compute_alone,
    compute_with,
    granted_cores,
    waited_s,
)


def groups(root: Path, quotas: list[str]) -> Path:
    """Control groups, the outermost first, each with what its `cpu.max` says; returns what /proc says of a process in
    the innermost."""
    folder = root / "fs"
    folder.mkdir()
    for number, quota in enumerate(quotas):
        folder = folder / f"group{number}"
        folder.mkdir()
        if quota:
            (folder / "cpu.max").write_text(f"{quota}\n")
    proc = root / "cgroup"
    proc.write_text(f"0::/{folder.relative_to(root / 'fs')}\n")
    return proc


@given(st.lists(st.none() | st.integers(1, 64), max_size=4))
def test_cores_are_those_of_the_tightest_group(
    tmp_path_factory: pytest.TempPathFactory, halves: list[int | None]
) -> None:
    root = tmp_path_factory.mktemp("groups")
    proc = groups(root, ["max 100000" if half is None else f"{half * 50_000} 100000" for half in halves])
    limits = [half / 2 for half in halves if half is not None]
    assert granted_cores(proc, root / "fs") == min(limits, default=None)


def test_no_groups_no_limit(tmp_path: Path) -> None:
    assert granted_cores(tmp_path / "none", tmp_path) is None
    assert granted_cores(groups(tmp_path, ["", ""]), tmp_path / "fs") is None


@pytest.mark.parametrize(
    ("cores", "count", "why"),
    [
        (1.5, 1, "the control group gives 1.5 cores"),
        (0.2, 1, "the control group gives 0.2 cores"),
        (3.0, 3, "the control group gives 3 cores"),
        (64.0, 4, "as torch has it"),
        (None, 4, "as torch has it"),
    ],
)
def test_threads_follow_the_group(monkeypatch: pytest.MonkeyPatch, cores: float | None, count: int, why: str) -> None:
    """The same when it is asked again, after torch has the number."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "PENSTOCK_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "granted_cores", lambda: cores)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    try:
        torch.set_num_threads(4)
        for _ in range(2):
            chosen = choose_threads(EngineConfig())
            assert (chosen.count, chosen.why) == (count, why)
            assert threads.compute_threads(EngineConfig()) == count == torch.get_num_threads()
        assert str(choose_threads(EngineConfig(threads=7))) == "7 compute: as threads says"
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        assert choose_threads(EngineConfig()).why == "as $OMP_NUM_THREADS says"
    finally:
        torch.set_num_threads(before)


def test_a_thread_that_computes_alone_leaves_the_others_theirs() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1, initializer=compute_alone) as alone, ThreadPoolExecutor(1) as other:
            assert alone.submit(torch.get_num_threads).result() == 1
            assert other.submit(torch.get_num_threads).result() == 3
            assert alone.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("said", "spins"),
    [({}, "30000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
    ids=["nothing", "count", "policy"],
)
def test_threads_that_wait_do_not_stay_awake_for_long(said: dict[str, str], spins: str) -> None:
    """What a user has set holds. It is set before torch is there, whose library reads it once."""
    script = "import os, sys, penstock.actors.engine; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", script], env=plain | said, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [spins, "False"], done.stderr


class Cores:
    """Cores that other processes use: of each second that `count` threads compute, each waits for `share` of it."""

    def __init__(self) -> None:
        self.share, self.waited_s = 0.0, 0.0

    def compute(self, crew: Crew, seconds: float) -> list[int]:
        """The numbers of threads, one after the other, in so many seconds of steps of 50 ms."""
        counts = [crew.count]
        for _ in range(round(seconds / 0.05)):
            self.waited_s += 0.05 * self.share * crew.count
            if crew.computed(0.05):
                counts.append(crew.count)
        return counts


def test_a_busy_machine_has_fewer_threads_and_a_free_one_all_of_them() -> None:
    cores = Cores()
    crew = Crew(8, lambda: cores.waited_s)
    assert cores.compute(crew, 5) == [8]
    cores.share = 0.6
    assert cores.compute(crew, 2) == [8, 4, 2, 1]
    assert cores.compute(crew, 20) == [1]
    cores.share = 0.0
    assert cores.compute(crew, 60) == [1, 2, 4, 8]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 16))
def test_there_is_always_one_thread_and_never_one_too_many(shares: list[float], most: int) -> None:
    cores = Cores()
    crew = Crew(most, lambda: cores.waited_s)
    for cores.share in shares:
        assert all(1 <= count <= most for count in cores.compute(crew, 2))


def test_threads_of_a_machine_that_stays_busy_are_tried_ever_less_often() -> None:
    """One thread has a core for itself, a second one has to share the other: it is tried, and each time later."""
    cores = Cores()
    crew, tries = Crew(2, lambda: cores.waited_s), []
    for moment in range(2000):
        cores.share = 0.6 if crew.count == 2 else 0.0
        if cores.compute(crew, 0.05)[1:] == [2]:
            tries.append(moment * 0.05)
    gaps = [later - sooner for sooner, later in zip(tries, tries[1:], strict=False)]
    assert len(gaps) >= 3
    assert gaps == sorted(gaps)
    assert gaps[-1] > 3


def test_where_waiting_is_not_known_the_number_stays(tmp_path: Path) -> None:
    assert waited_s(tmp_path) is None
    assert Cores().compute(Crew(4, lambda: None), 5) == [4]


def test_waiting_is_that_of_the_thread_and_of_those_that_help_it(tmp_path: Path) -> None:
    """As Linux says it, in nanoseconds: what other threads of Python wait for is their own."""
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(threading.get_native_id).result()
        for id, waited_ns in ((threading.get_native_id(), 5 * 10**9), (other, 7 * 10**9), (10**9, 2 * 10**9)):
            (tmp_path / str(id)).mkdir()
            (tmp_path / str(id) / "schedstat").write_text(f"123 {waited_ns} 4\n")
        (tmp_path / "5").mkdir()  # a thread that has just ended
        assert waited_s(tmp_path) == 7.0


def test_another_number_of_threads_is_that_of_the_thread_alone() -> None:
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        one.submit(compute_with, before + 2).result()
        assert one.submit(torch.get_num_threads).result() == before + 2
        assert other.submit(torch.get_num_threads).result() == before
    assert torch.get_num_threads() == before
