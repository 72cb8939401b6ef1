"""What `make check` finds does not hang on what the folder is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_imports_are_sorted_in_a_folder_called_penstock(tmp_path: Path) -> None:
    """A clone is called so, and then ruff takes its root for the package `penstock`, which it is."""
    clone = tmp_path / "penstock"
    clone.symlink_to(Path(__file__).parents[2])
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "I", str(clone)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
