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
# A whole conversation with these packages barred.
TALK = """
import asyncio, sys
for name in {barred!r}:
    sys.modules[name] = None
import numpy as np
import penstock
from penstock import Image, Request, SamplingParams

async def talk(url):
    async with penstock.connect(url) as connection:
        picture = np.zeros((56, 56, 3), np.uint8)
        async with await connection.stream(Request(format="turns")) as stream:
            await stream.append(Image(picture))
            assert await (await stream.ask("What is there?", SamplingParams(max_tokens=4))).text()
        parts = [{{"type": "image", "image": picture}}, {{"type": "text", "text": "What?"}}]
        messages = [{{"role": "user", "content": parts}}]
        assert await connection.generate(Request(messages=messages), SamplingParams(max_tokens=4))

asyncio.run(talk({url!r}))
"""
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


def test_a_client_talks_where_they_are_not_installed(brook_url: str) -> None:
    assert loaded(TALK.format(barred=HEAVY, url=brook_url), ()) == "[]"


@pytest.mark.parametrize(
    "command", ["", "serve", "plan", "ask", "devices", "trace", "bench", "bench live", "bench append", "completion"]
)
def test_help_loads_next_to_nothing(command: str) -> None:
    assert loaded(HELP.format(arguments=[*command.split(), "--help"]), SLOW) == "[]"
