"""Rooms stay small: a file at most 400 lines, a function at most 60, and no room for what has no better name."""

from __future__ import annotations

import ast

from tests.house.source import ROOT, at, modules, tree

FILE_LINES = 400
FUNCTION_LINES = 60
NAMELESS = {"utils", "util", "manager", "helper", "helpers", "base", "common", "misc"}


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert len(lengths) > 20
    assert not {name: lines for name, lines in lengths.items() if lines > FILE_LINES}


def test_functions_are_short() -> None:
    long = {}
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{at(path, node.lineno)} {node.name}"] = lines
    assert not long


def test_modules_are_named_for_what_they_hold() -> None:
    assert not [str(path.relative_to(ROOT)) for path in modules() if path.stem in NAMELESS]
