"""Each folder has a map, each module says what it takes and gives, and the wheel has every folder and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.source import FOLDERS, ROOT, at, dotted, modules, tree

# Prints what setuptools would copy, for the wheel, into the folder that is given. Only its notes about the sources are
# written there.
WHEEL = """
import sys
from setuptools import Distribution
package = Distribution({"script_name": "setup.py"})
package.parse_config_files(["pyproject.toml"])
package.get_command_obj("egg_info").egg_base = sys.argv[1]
build = package.get_command_obj("build_py")
build.build_lib = sys.argv[1]
build.ensure_finalized()
for name in build.get_outputs():
    print(name)
"""
# Where the wheel has files that are not modules.
DATA = {".", "engine/brook", "server/page"}


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


def test_the_wheel_has_the_package_and_nothing_else(tmp_path: Path) -> None:
    """No tests and no fixtures."""
    command = [sys.executable, "-c", WHEEL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    shipped = {Path(line).relative_to(tmp_path / "penstock") for line in done.stdout.splitlines()}
    code = {path for path in shipped if path.suffix == ".py"}
    assert code == {path.relative_to(ROOT) for path in modules()}
    assert {path.parent.as_posix() for path in shipped - code} == DATA


def test_brook_comes_without_code() -> None:
    assert modules("engine/brook") == [ROOT / "engine" / "brook" / "__init__.py"]


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    pinned = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    assert not {re.split(r"[<>=;!~ \[]", name)[0] for name in wanted} - pinned


def test_a_class_name_means_one_thing() -> None:
    """Over the whole package: who reads a name need not ask which."""
    places: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(at(path, node.lineno))
    assert not {name: found for name, found in places.items() if len(found) > 1}
