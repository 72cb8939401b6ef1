"""Every Python block of the documentation runs as it stands; those for a socket against a real server."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from pages import Block, blocks
from penstock.demos.film import draw
from penstock.server import cli
from PIL import Image

from tests.fixtures.recipe import model_path

HERE = "127.0.0.1:8000"
OF_THE_HUB = re.compile(r'(?<=Engine\.load\(")[\w.-]+/[\w.-]+(?="\))')
SMALL = {"Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl"}  # a random model of the same architecture


@pytest.fixture
def server(brook_url: str) -> str:
    """Host and port of `penstock serve` with Brook."""
    return brook_url.removeprefix("http://").rstrip("/")


def run(block: Block, text: str) -> str:
    """Run a block as a program; what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, block.name, "exec"), {"__name__": "__main__"})
    return out.getvalue()


PYTHON = [block for block in blocks("python") if block.page != "README.md"]
LOCAL = [block for block in PYTHON if HERE not in block.text]
SOCKET = [block for block in PYTHON if HERE in block.text]


@pytest.mark.parametrize("block", LOCAL, ids=lambda block: block.name)
def test_a_local_example_runs_and_prints(block: Block) -> None:
    assert run(block, block.text).strip()


@pytest.mark.parametrize("block", SOCKET, ids=lambda block: block.name)
def test_a_socket_example_runs_and_prints(block: Block, server: str) -> None:
    assert run(block, block.text.replace(HERE, server)).strip()


def test_the_cells_of_the_notebook_run_one_after_the_other_in_a_loop_that_runs() -> None:
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


class Reader:
    """Somebody who has the README and nothing else: does what stands there, and keeps what is printed."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.serves = False
        self.printed: dict[str, str] = {}

    def program(self, block: Block) -> None:
        """Run a program. A model of the Hub is replaced by a small one, and nothing else is changed."""
        named = OF_THE_HUB.search(block.text)
        text = OF_THE_HUB.sub(lambda id: str(model_path(SMALL[id[0]])), block.text)
        self.printed["a model of the Hub" if named else "Brook"] = run(block, text)

    def command(self, name: str, *arguments: str) -> None:
        """What is printed by a command. The environment and the server are there already."""
        if name == "penstock" and arguments[0] == "serve":
            self.serves = True
        elif name == "penstock":
            assert self.serves or HERE not in " ".join(arguments), "asked before there is a server"
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                assert cli.main([word.replace(HERE, self.server) for word in arguments]) == 0
            self.printed[arguments[0]] = out.getvalue()


def test_the_readme_alone_leads_to_a_stream_of_ones_own(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw(0.0)).save("door.jpg")  # the picture that the reader has
    reader = Reader(server)
    steps = [block for block in blocks("sh") + blocks("python") if block.page == "README.md"]
    for block in sorted(steps, key=lambda block: block.line):
        if block.language == "python":
            reader.program(block)
        else:
            for line in filter(None, (shlex.split(line, comments=True) for line in block.text.splitlines())):
                reader.command(*line)
    seen = [float(time) for time in re.findall(r"\. \[seen up to ([\d.]+) s\]$", reader.printed["Brook"], re.MULTILINE)]
    assert len(seen) >= 2 and seen == sorted(seen) and seen[0] < seen[-1], reader.printed  # it saw what came meanwhile
    assert len(reader.printed["a model of the Hub"].splitlines()) >= 2  # it is random, and so are its words
    assert "circle" in reader.printed["ask"], reader.printed
