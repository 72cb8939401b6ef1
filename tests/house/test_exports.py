"""Each folder has a map, each module says what it takes and gives, and every folder is in the wheel."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.house.source import FOLDERS, ROOT, dotted, modules, tree


def packages() -> list[str]:
    return sorted(".".join(dotted(path)) for path in modules(*FOLDERS) if path.name == "__init__.py")


@pytest.mark.parametrize("package", packages())
def test_a_folder_has_a_map_of_its_modules(package: str) -> None:
    folder = ROOT.joinpath(*package.split("."))
    text = ast.get_docstring(tree(folder / "__init__.py")) or ""
    rooms = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    missing = sorted(room for room in rooms - {"__init__"} if not re.search(rf"\b{room}\b", text))
    assert text and not missing


def test_every_module_says_what_it_is() -> None:
    assert not [str(path.relative_to(ROOT)) for path in modules() if not ast.get_docstring(tree(path))]


def test_every_folder_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(["penstock", *(f"penstock.{package}" for package in packages())])


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    pinned = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    assert not {re.split(r"[<>=;!~ ]", name)[0] for name in wanted} - pinned
