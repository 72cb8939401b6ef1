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
    "penstock --help": """
import contextlib, io
from penstock.server.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main(["--help"])
assert "serve" in out.getvalue()
""",
}


@pytest.mark.parametrize("name", LIGHT)
def test_loads_no_heavy_library(name: str) -> None:
    script = f"{LIGHT[name]}\nimport sys\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd="/")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
