"""Runs of pytest side by side run every test once, and one of them all that the table of families is made from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.shares import FAMILIES, shared, unit

ROOT = Path(__file__).parents[2]
FILES = ("a/test_one", "a/test_two", "a/test_oracle1", "b/test_three", "b/test_oracle2", "c/test_four", "c/test_five")
ITEMS: list[Any] = [
    SimpleNamespace(nodeid=f"{file}.py::test_{which}", path=Path(f"{file}.py")) for which in "ab" for file in FILES
]


def test_every_test_is_run_once(tmp_path: Path) -> None:
    """By real runs that do not wait for each other."""
    for item in ITEMS:
        path = tmp_path / item.path
        path.parent.mkdir(exist_ok=True)
        path.write_text("def test_a(): ...\ndef test_b(): ...\n")
    (tmp_path / "claims").mkdir()
    command = [sys.executable, "-m", "pytest", "-v", "-c", "/dev/null", f"--rootdir={tmp_path}", "-p", "tests.shares"]
    command += ["--import-mode=importlib", "-p", "no:cacheprovider", "--claims", str(tmp_path / "claims"), "--begin"]
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen([*command, begin], cwd=tmp_path, env=own, stdout=subprocess.PIPE, text=True) for begin in "bc"
    ]
    told = [run.communicate(timeout=100)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    passed = [line.split(" ")[0] for out in told for line in out.splitlines() if "PASSED" in line]
    assert sorted(passed) == sorted(item.nodeid for item in ITEMS)


@pytest.mark.parametrize("begin", ["", "a", "b", "c"])
def test_a_run_begins_where_it_is_told_and_goes_on_with_what_nobody_has_begun(begin: str, tmp_path: Path) -> None:
    mine = shared(ITEMS, begin, tmp_path)
    first = next(mine)
    assert first.nodeid.startswith(begin)
    rest = list(shared(ITEMS, begin, tmp_path))
    assert {unit(item) for item in (first, *rest)} == {unit(item) for item in ITEMS}
    assert unit(first) not in {unit(item) for item in rest}
    assert [unit(item) for item in mine] == [unit(first)] * (len(ITEMS) // len(FILES) - 1)


def test_the_families_are_run_whole_by_one(tmp_path: Path) -> None:
    of_one = [item.nodeid for item in shared(ITEMS, "c", tmp_path) if unit(item) == FAMILIES]
    assert len(of_one) == 4 and {name.split("::")[0] for name in of_one} == {"a/test_oracle1.py", "b/test_oracle2.py"}


def test_nothing_is_run_twice(tmp_path: Path) -> None:
    runs = [shared(ITEMS, begin, tmp_path) for begin in "abc"]
    ran: list[str] = []
    while runs:  # in turns, as they would side by side
        for run in list(runs):
            item = next(run, None)
            runs.remove(run) if item is None else ran.append(item.nodeid)
    assert sorted(ran) == sorted(item.nodeid for item in ITEMS)
