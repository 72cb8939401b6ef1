"""Every Python block of the documentation runs as it stands; those for a socket against a real server."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import re
from typing import Any

import pytest
from pages import Block, blocks

HERE = "127.0.0.1:8000"


@pytest.fixture
def server(brook_url: str) -> str:
    """Host and port of `penstock serve` with Brook."""
    return brook_url.removeprefix("http://")


def run(block: Block, text: str) -> str:
    """Run a block as a program; what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, block.name, "exec"), {"__name__": "__main__"})
    return out.getvalue()


PYTHON = blocks("python")
LOCAL = [block for block in PYTHON if HERE not in block.text]
SOCKET = [block for block in PYTHON if HERE in block.text]


@pytest.mark.parametrize("block", LOCAL, ids=lambda block: block.name)
def test_a_local_example_runs_and_prints(block: Block) -> None:
    assert run(block, block.text).strip()


@pytest.mark.parametrize("block", SOCKET, ids=lambda block: block.name)
def test_a_socket_example_runs_and_prints(block: Block, server: str) -> None:
    assert run(block, block.text.replace(HERE, server)).strip()


def test_the_cells_of_the_notebook_run_one_behind_the_other_in_a_loop_that_runs() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    out = io.StringIO()

    async def session() -> None:
        for cell in blocks("ipython"):
            running = eval(compile(cell.text, cell.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), space)
            if running is not None:
                await running

    with contextlib.redirect_stdout(out):
        asyncio.run(session())
    seen, told = out.getvalue().splitlines()
    assert "circle" in seen and told.strip().startswith("I see"), out.getvalue()


def test_the_first_example_shows_a_reply_that_sees_what_came_while_it_ran() -> None:
    first = LOCAL[0]
    assert first.page == "README.md"
    printed = run(first, first.text)
    seen = [float(time) for time in re.findall(r"\. +\[seen: video up to ([\d.]+) s\]$", printed, re.MULTILINE)]
    assert len(seen) >= 2 and seen == sorted(seen) and seen[0] < seen[-1], printed
