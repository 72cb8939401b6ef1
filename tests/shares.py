"""Several runs of pytest side by side share the tests: what one has begun, no other runs.

A pytest plugin. In: the folder of tests that a run begins with, and a folder that all the runs know
(`--begin tests/page --claims FOLDER`). Out: each file of tests is run whole by one of the runs. A run that is through
with its folder goes on with what nobody has begun, so all end at about the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.features import COLUMNS

FAMILIES = "tests/reference"  # where the first of them is


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--claims", type=Path, metavar="FOLDER", help="where runs side by side say what they have begun")
    parser.addoption("--begin", metavar="PATH", default="", help="which tests this run begins with, of those it shares")


def unit(item: pytest.Item) -> str:
    """What is run whole by one run: a file. Those that the table of families is made from count as one."""
    return FAMILIES if item.path.stem in COLUMNS else item.nodeid.split("::")[0]


def claimed(folder: Path, name: str) -> bool:
    """Whether this run is the first that asks for it."""
    try:
        (folder / name.replace("/", "+")).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def shared(items: list[pytest.Item], begin: str, folder: Path) -> Iterator[pytest.Item]:
    """What this run has to run. A file is claimed when its first test is asked for."""
    units: dict[str, list[pytest.Item]] = {}
    for item in items:
        units.setdefault(unit(item), []).append(item)
    names = list(units)
    first = next((place for place, name in enumerate(names) if name.startswith(begin)), 0)
    for name in (*names[first:], *names[:first]):
        if claimed(folder, name):
            yield from units[name]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """As pytest's own, which a run that shares nothing has."""
    folder = session.config.getoption("claims")
    if folder is None or session.config.option.collectonly or session.testsfailed:
        return None
    items = shared(session.items, str(session.config.getoption("begin")), folder)
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True
