"""Which control groups of Linux this process is in: what they allow is less than the machine has. It knows no torch."""

from __future__ import annotations

import re
from pathlib import Path


def control_groups(proc: Path, root: Path) -> list[Path]:
    """The folders of the control groups (version 2) around this process, the innermost first; none where it has none.
    `proc` says which, below `root`."""
    try:
        match = re.search(r"^0::/(.*)$", proc.read_text(), re.MULTILINE)
    except OSError:
        match = None
    if match is None:
        return []
    group = root / match[1]
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
