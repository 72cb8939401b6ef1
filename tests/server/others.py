"""Programs of other people that are tried against the server, each with its packages in a folder of its own. A package
that cannot be installed fails the test; only where a machine has no npm at all is a test skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def printed(command: list[str | Path], where: Path, **environment: str) -> str:
    """What a command in a folder prints; it does not find this package. Fails with what it says where it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=where, env=clean | environment, capture_output=True, text=True, encoding="utf-8", timeout=600
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))[:200]}\n{done.stdout}\n{done.stderr}"[-4000:]
    return done.stdout


def python_with(folder: Path, *packages: str) -> Path:
    """The Python of a virtual environment that has these packages."""
    printed([sys.executable, "-m", "venv", folder / "venv"], folder)
    python = folder / "venv" / "bin" / "python"
    printed([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages], folder)
    return python


def node_with(folder: Path, *packages: str) -> None:
    """Install these packages of npm in a folder; skips where there is no npm."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    printed(["npm", "install", "--no-audit", "--no-fund", "--silent", *packages], folder)
