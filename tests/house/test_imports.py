"""Imports point left only, asyncio stays in its rooms, and each room knows only the libraries it may know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house.source import FOLDERS, ROOT, at, dotted, imports, modules, tree

# The wings and contracts of `engine`: each may import those before it.
WINGS = (
    *("span", "embeddings", "plan", "frozen", "command", "encoding", "graph", "prefix", "pages", "positions", "config"),
    *("logits", "words", "family", "runner", "families", "conversation", "guessing", "scheduling", "loading", "remote"),
    *("core", "record", "snapshot", "brook"),
)
FORBIDDEN = {
    "codecs": {"asyncio", "transformers", "websockets", "starlette", "uvicorn"},
    "streams": {"asyncio", "torch", "transformers", "av", "PIL", "websockets", "starlette", "uvicorn", "socket"},
    "engine": {"asyncio", "av", "websockets", "starlette", "uvicorn", "socket"},
    "actors": {"websockets", "starlette", "uvicorn"},
    "server": {"torch", "transformers"},
}
# The benchmarks time plain `transformers` beside the engine, on tensors. They are imported only when one is asked for.
# An engine's encoder may be in another process: the way there is no door, but the engine's own.
ALLOWED = {"server/bench": {"torch", "transformers"}, "actors/remote": {"websockets"}}


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_left(folder: str) -> None:
    right = set(FOLDERS[FOLDERS.index(folder) + 1 :])
    wrong = [
        f"{at(path, line)} imports {name}"
        for path in modules(folder)
        for line, name in imports(path)
        if name.split(".")[0] == "penstock" and len(name.split(".")) > 1 and name.split(".")[1] in right
    ]
    assert not wrong


def test_wings_of_the_engine_import_wings_before_them() -> None:
    wrong = []
    for path in modules("engine"):
        wing = (*dotted(path), "")[1]
        before = set(WINGS[: WINGS.index(wing)]) | {wing} if wing else set()
        for line, name in imports(path):
            parts = name.split(".")
            if parts[:2] == ["penstock", "engine"] and parts[2:] and parts[2] in WINGS and parts[2] not in before:
                wrong.append(f"{at(path, line)} imports {name}")
    assert not wrong


def test_the_package_imports_no_tests() -> None:
    found = [(at(path, line), name.split(".")) for path in modules() for line, name in imports(path)]
    assert not [(place, name) for place, name in found if name[0] == "tests" or name[:2] == ["penstock", "tests"]]


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "demos"])
def test_imports_inside_the_package_are_relative(folder: str) -> None:
    wrong = []
    for path in modules(folder):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            wrong += [f"{at(path, node.lineno)} imports {name}" for name in names if name.split(".")[0] == "penstock"]
    assert not wrong


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_rooms_do_not_know_what_is_not_theirs(folder: str) -> None:
    wrong = [
        f"{at(path, line)} imports {name}"
        for path in modules(folder)
        for line, name in imports(path)
        if name.split(".")[0] in FORBIDDEN[folder] - ALLOWED.get("/".join(dotted(path)[:2]), set())
    ]
    assert not wrong


# What is sans I/O, and what it may know of the folder that it is in.
PURE = {
    "server/commands.py": {"streams"},
    "server/session.py": {"streams", "errors", "server.commands", "server.errors"},
}
_OPENAI = {f"server.openai_{name}" for name in ("form", "inputs", "messages", "output", "params", "replies", "words")}
_OPENAI |= {"server.tool_calls", "server.kept_media"}
PURE |= {
    f"{name.replace('.', '/')}.py": {"streams", "errors", "server.commands", "server.errors"} | _OPENAI
    for name in _OPENAI
}
DOOR = {
    "streams",
    "errors",
    "server.commands",
    "server.errors",
    "server.wire",
    "server.answer",
    "server.config",
    "server.doors.heard",
    "server.multipart",
} | _OPENAI


@pytest.mark.parametrize("path", modules("server"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_session_knows_no_wire_and_a_door_no_other(path: Path) -> None:
    """Neither waits, counts time or opens a socket: what they need is given to them."""
    place = path.relative_to(ROOT).parts
    if place[:2] == ("server", "doors") and path.stem != "__init__":
        own = {"server.doors." + place[2]} if len(place) > 3 else set()  # a door of several modules knows these
        known = DOOR | own | {"actors.info"}  # for its types
    elif (known := PURE.get(str(path.relative_to(ROOT)))) is None:  # pyright: ignore[reportArgumentType]
        return
    barred = {"asyncio", "time", "socket", "threading", "json", "starlette", "uvicorn", "websockets"}
    for line, name in imports(path):
        parts = name.split(".")
        assert parts[0] not in barred, f"{at(path, line)} imports {name}"
        inside = ".".join(parts[1:])
        allowed = any(inside == room or inside.startswith(f"{room}.") or room.startswith(inside) for room in known)
        assert parts[0] != "penstock" or allowed, f"{at(path, line)} imports {name}"


def public_names() -> set[str]:
    """What the package's root says is public: the strings of its `__all__`."""
    for node in tree(ROOT / "__init__.py").body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return set(ast.literal_eval(node.value))  # pyright: ignore[reportAttributeAccessIssue]
    raise AssertionError("the root's __init__.py has no __all__")


def test_demos_use_public_names_only() -> None:
    """Brook's training loads transformers, so it may also take from `codecs` what mends the wheels under it."""
    public = public_names()
    wrong = []
    for path in modules("demos"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom):
                depth = len(path.relative_to(ROOT / "demos").parts)
                inside = 0 < node.level <= depth or (node.module or "").startswith("penstock.demos")
                if depth > 1 and node.module == "penstock.codecs.wheels":
                    continue
                if node.level > depth or ((node.module or "").split(".")[0] == "penstock" and not inside):
                    taken = {alias.name for alias in node.names}
                    if node.level > depth + 1 or node.module not in (None, "penstock") or not taken <= public:
                        wrong.append(f"{at(path, node.lineno)} imports {sorted(taken)} from {node.module}")
            elif isinstance(node, ast.Import):
                wrong += [at(path, node.lineno) for alias in node.names if alias.name.startswith("penstock.")]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "penstock":
                if node.attr not in public:
                    wrong.append(f"{at(path, node.lineno)} uses penstock.{node.attr}")
    assert not wrong


def test_the_reference_owes_the_package_nothing() -> None:
    oracle = [path for path in (ROOT / "tests" / "reference").glob("*.py")]
    assert len(oracle) >= 6
    wrong = [
        f"{at(path, line)} imports {name}"
        for path in oracle
        for line, name in imports(path)
        if name.split(".")[0] in {"penstock", *FOLDERS} and not name.startswith("penstock.tests.reference")
    ]
    assert not wrong


def test_folders_of_tests_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
