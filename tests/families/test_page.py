"""docs/every-model.md says what the suite says."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.families import BUILT_IN
from penstock.errors import ModelError

from . import census
from .built import BUILDERS, TYPES
from .census import PAGE
from .refused import REFUSED


def rows() -> dict[str, list[str]]:
    found = re.findall(r"^\| `([\w.-]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in found}


def test_every_type_of_the_suite_has_its_line() -> None:
    lines = rows()
    for name in TYPES:
        built = BUILDERS[name]
        letters = [built.classes.get(kind, "") for kind in ("image", "video", "audio")]
        assert lines[name][:4] == (["by name"] if name in BUILT_IN else ["tried"]) + letters, name
    for name in REFUSED.keys() & lines.keys():
        refusal = REFUSED[name]
        assert refusal.reason in lines[name][-1].replace("\\|", "|"), name
    assert not {name for name, cells in lines.items() if not cells[0] and not cells[-1]}


def test_the_number_on_the_page_is_the_number_of_its_lines() -> None:
    served = sum(bool(cells[0]) for cells in rows().values())
    assert f"Served: {served} of {len(rows())} types." in PAGE.read_text(encoding="utf-8")


def test_the_page_names_no_folder_of_the_machine_that_made_it() -> None:
    assert tempfile.gettempdir() + "/" not in PAGE.read_text(encoding="utf-8")


def test_a_reason_that_begins_with_the_folder_of_the_model_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, config: EngineConfig) -> None:
        raise ModelError(f"{folder}: expected the package timm, which this checkpoint needs, got none")

    monkeypatch.setattr(census, "load", refuse)
    said = census._said(lambda folder: folder, "any")
    assert said == "expected the package timm, which this checkpoint needs, got none"
