"""What docs/security.md promises of the server's own code: who may open a connection or start a program, and that
nothing which is read is run. And the tests that it names are there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house.source import ROOT, at, imports, modules, tree

# Modules that know the network or other programs, with what for. Benchmarks and demos are no part of a server.
NETWORK = {
    "server/app.py": "listens",
    "server/fetching.py": "fetches media by its URL, where that is allowed",
    "server/client_socket.py": "the client's connection",
    "server/ask.py": "a command: silences the Hub's library",
    "server/watch.py": "a command: posts to a webhook that its user names",
    "engine/loading/hub.py": "downloads a model",
    "engine/loading/checkpoint.py": "checks a model's name",
    "actors/remote.py": "an engine's encoder in another process, which its user names",
    "codecs/worker.py": "a socket pair to a process that decodes",
}
PROGRAMS = {"server/demo_model.py": "a command: runs pip", "codecs/worker.py": "processes that decode"}
OPENS = ("socket", "ssl", "http.client", "urllib.request", "huggingface_hub", "requests", "httpx", "aiohttp", "ftplib")
CONNECTS = ("websockets.asyncio.client", "websockets.sync.client")
STARTS = ("subprocess", "multiprocessing", "pty")
RUNS = ("pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "runpy", "code")
CALLS = ("eval", "exec", "__import__", "os.system", "os.popen", "torch.load")
RISKS = (("trust_remote_code", "True"), ("shell", "True"), ("allow_pickle", "True"))
SERVER = [
    path
    for path in modules("codecs", "streams", "engine", "actors", "server")
    if path.relative_to(ROOT).parts[:2] != ("server", "bench")
]


def those_that_import(names: tuple[str, ...]) -> set[str]:
    found = [(path, name) for path in SERVER for _, name in imports(path)]
    return {
        path.relative_to(ROOT).as_posix()
        for path, name in found
        if any(name == known or name.startswith(f"{known}.") for known in names)
    }


def test_few_modules_know_the_network_or_programs() -> None:
    assert those_that_import(OPENS + CONNECTS) == set(NETWORK)
    assert those_that_import(STARTS) == set(PROGRAMS)


def test_nothing_that_is_read_is_run() -> None:
    assert not those_that_import(RUNS)
    wrong = []
    for path in SERVER:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and _called(node) in CALLS:
                wrong.append(at(path, node.lineno))
            if isinstance(node, ast.keyword) and (node.arg, ast.unparse(node.value)) in RISKS:
                wrong.append(at(path, node.value.lineno))
    assert not wrong


def _called(call: ast.Call) -> str:
    """The name that is called; of a method, only where it is a module's."""
    of = call.func
    if isinstance(of, ast.Attribute) and isinstance(of.value, ast.Name):
        return f"{of.value.id}.{of.attr}"
    return of.id if isinstance(of, ast.Name) else ""


NAMED: list[tuple[str, str]] = re.findall(
    r"`(tests/[a-z]+/test_\w+\.py)(?:::(\w+))?`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[f"{file}::{name}" for file, name in NAMED])
def test_the_tests_that_it_names_are_there(file: str, name: str) -> None:
    written = (ROOT / file).read_text(encoding="utf-8")
    assert not name or re.search(rf"^def {name}\(", written, re.MULTILINE)
