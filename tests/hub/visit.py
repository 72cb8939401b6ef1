"""What a fresh process makes of names of models, with its own cache and its own Hub: `huggingface_hub` reads its
environment when it is imported. Run as a program it finds, or loads, one after the other, and tells what came as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple


class Visit(NamedTuple):
    """What came of a process: one dictionary for each name, and what it wrote on stderr."""

    found: list[dict[str, Any]]
    stderr: str

    @property
    def error(self) -> str:
        """What is said of the first name; no library may say anything beside it."""
        assert self.stderr == "", self.stderr
        return self.found[0]["error"]


def environment(hub: str, home: Path, **more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    return {**own, "HF_ENDPOINT": hub, "HF_HOME": str(home), **more}


def visit(hub: str, home: Path, *names: str, load: bool = False, before: str = "", **more: str) -> Visit:
    """Find these names (`id` or `id@revision`) or load them, in a process that runs the code `before` first and says
    yes to everything that it is asked on stdin."""
    command = [sys.executable, __file__, json.dumps({"load": load, "before": before, "names": names})]
    own = environment(hub, home, **more)
    done = subprocess.run(command, env=own, input="y\n" * 20, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return Visit(json.loads(done.stdout), done.stderr)


def _find(name: str, revision: str | None) -> dict[str, Any]:
    from penstock.engine.loading.checkpoint import find

    checkpoint = find(name, revision, threading.Event())
    checkpoint.fetch_weights()
    return {"name": checkpoint.name, "folder": str(checkpoint.folder)}


def _load(name: str, revision: str | None) -> dict[str, Any]:
    from penstock.engine.config import EngineConfig
    from penstock.engine.loading.open import load

    loaded = load(name, EngineConfig(), revision)
    return {"name": loaded.family.data.model, "stop_ids": sorted(loaded.family.stop_ids)}


def main(task: dict[str, Any]) -> list[dict[str, Any]]:
    from penstock.errors import ModelError

    exec(task["before"], {})
    found = []
    for word in task["names"]:
        name, _, revision = word.partition("@")
        try:
            found.append((_load if task["load"] else _find)(name, revision or None))
        except ModelError as error:
            found.append({"error": str(error)})
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))))
