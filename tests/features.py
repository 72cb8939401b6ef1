"""The table of families in docs/families.md, made from a run of their tests: `make features`. `make test` fails where
the page is not what its own run would write.

A pytest plugin. In: the reports of a run. Out: the page, with the number of tests that passed for each family and
oracle. A cell without tests is empty; a failed test is named.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
# The fixture models by the model type that they stand for.
MODEL_TYPES = {"omni": "qwen2_5_omni", "qwen3_omni": "qwen3_omni_moe", "text": "qwen2"}
CHOSEN = ("omni_name", "sight_name", "still_name", "text_name")  # fixtures that name the model
COLUMNS = {
    "test_oracle1": "one shot equals `generate`",
    "test_oracle2": "streamed in any cuts equals one append",
    "test_oracle3": "appended in mid-reply equals a dense forward",
    "test_oracle4": "beside strangers, preempted, forked",
    "test_prompt_media": "prompt, ids and media in any form",
    "test_mutations": "what is broken is found",
    "test_reference": "the model sees; the reference equals stock",
}
HEAD = """# Families, by their tests

Made by `make features` from a run of the tests; a cell is the number of tests that passed, most of which draw many
cases. What each family takes is in [models.md](models.md).

"""

_results: dict[tuple[str, str], list[tuple[str, bool]]] = defaultdict(list)
_families: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--families", choices=("write", "check"), default="check", help="what becomes of docs/families.md")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        chosen = [name for name in CHOSEN if name in getattr(item, "fixturenames", ())]
        if chosen and item.path.stem in COLUMNS:
            params = getattr(getattr(item, "callspec", None), "params", {})
            name = str(params.get(chosen[0], "omni"))
            _families[item.nodeid] = MODEL_TYPES.get(name, name)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.nodeid in _families and (report.when == "call" or report.failed):
        column = Path(report.nodeid.split("::")[0]).stem
        _results[_families[report.nodeid], column].append((report.nodeid, report.passed))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """The page is written of whole runs only: passed or with failures, not broken off. Of runs that share the tests
    one has them all (tests/shares.py), and the others have nothing to say.
    """
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    if session.config.getoption("claims", None) is not None and not _results:
        return
    page = HEAD + table()
    if session.config.getoption("families") == "write":
        PAGE.write_text(page, encoding="utf-8")
    elif page != PAGE.read_text(encoding="utf-8"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(
                f"\n{PAGE}: expected what this run gives (`make features` writes it):\n{table()}", red=True
            )


def table() -> str:
    """A row for each family, a column for each kind of test."""
    families = sorted({family for family, _ in _results})
    lines = [
        ["model type", *COLUMNS.values()],
        ["---", *("--:" for _ in COLUMNS)],
        *([f"`{family}`", *(_cell(_results.get((family, column), [])) for column in COLUMNS)] for family in families),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(results: list[tuple[str, bool]]) -> str:
    failed = [nodeid for nodeid, passed in results if not passed]
    return f"failed: {', '.join(failed)}" if failed else str(len(results) or "")
