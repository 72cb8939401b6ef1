"""What a client needs is light: it loads neither torch nor transformers. Seen from outside, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "torchvision", "torchaudio", "numba")

LIGHT = {
    "import penstock": "import penstock",
    "penstock.connect": "import penstock; penstock.connect",
    "penstock.server.client": "import penstock.server.client",
    "penstock completion": """
import contextlib, io
from penstock.server.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert main(["completion", "bash"]) == 0
assert "serve" in out.getvalue()
""",
    "penstock ask --url": """
import contextlib, io
from penstock.server.cli import main
with contextlib.redirect_stderr(io.StringIO()) as told:
    assert main(["ask", "no.mp4", "What happens?", "--url", "ws://127.0.0.1:1"]) == 2
assert "no such file" in told.getvalue()
""",
}
# `--help` answers at once: what a command needs is loaded when it runs.
HELP = """
import contextlib, io
from penstock.server.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main({arguments})
assert "usage: penstock" in out.getvalue()
"""
SLOW = (*HEAVY, "av", "PIL", "asyncio", "starlette", "uvicorn", "websockets", "shtab")


def loaded(script: str, names: tuple[str, ...]) -> str:
    """Which of these modules a fresh interpreter has loaded behind the script."""
    script = f"{script}\nimport sys\nprint(sorted(set({names!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd="/")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("name", LIGHT)
def test_loads_no_heavy_library(name: str) -> None:
    assert loaded(LIGHT[name], HEAVY) == "[]"


@pytest.mark.parametrize("command", ["", "serve", "ask", "devices", "trace", "bench", "bench append", "completion"])
def test_help_loads_next_to_nothing(command: str) -> None:
    assert loaded(HELP.format(arguments=[*command.split(), "--help"]), SLOW) == "[]"
