"""The project's source files, for tests that read them. In: nothing. Out: paths and syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Imports point left only: a folder may import those before it.
FOLDERS = ("codecs", "streams", "engine", "actors", "server", "demos")


def modules(*folders: str) -> list[Path]:
    """All Python files of these folders of the package (default: all, and those of the root)."""
    found = [] if folders else sorted(ROOT.glob("*.py"))
    for folder in folders or FOLDERS:
        found += sorted((ROOT / folder).rglob("*.py"))
    own = {about.parent for about in (ROOT / "demos").glob("*/pyproject.toml")}  # packages of their own
    return [path for path in found if own.isdisjoint(path.parents)]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def dotted(path: Path) -> tuple[str, ...]:
    """A file's module name inside the package, as parts: `engine/core.py` is ("engine", "core")."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of each import, deferred ones too; `from x import y` yields `x` and `x.y`."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path)[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = ["penstock", *package[: len(package) - node.level + 1], *base]
            name = ".".join(base)
            yield node.lineno, name
            for alias in node.names:
                yield node.lineno, f"{name}.{alias.name}"


def at(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"
