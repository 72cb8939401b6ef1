"""What a person reads on the first day: `penstock ask --model ID` with a model that cannot be had. One line says why,
and what to do, exit code 2, and no library says anything beside it. What is said of a network that is not there, and of
a disk that is full, is in test_find.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from local_hub import LocalHub
from PIL import Image
from visit import environment

from tests.fixtures.recipe import model_path

# Runs the command once for each list of arguments; tells exit codes and what came on stderr through Python's own.
SCRIPT = """
import contextlib, io, json, sys
from penstock.server.cli import main
told = []
for arguments in json.loads(sys.argv[1]):
    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        code = main(arguments)
    told.append([code, err.getvalue(), out.getvalue()])
print(json.dumps(told))
"""


@pytest.fixture
def door(tmp_path: Path) -> str:
    Image.new("RGB", (28, 28)).save(tmp_path / "door.png")
    return str(tmp_path / "door.png")


def lines(hub: str, home: Path, door: str, *models: str) -> list[str]:
    """What is said of each model."""
    runs = [["ask", "--model", model, "--device", "cpu", door, "What do you see?"] for model in models]
    command = [sys.executable, "-c", SCRIPT, json.dumps(runs)]
    done = subprocess.run(command, env=environment(hub, home), capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    for code, line, out in told:
        assert (code, out) == (2, "") and line.startswith("penstock: error: ") and line.endswith("\n")
        assert line.count("\n") == 1
    return [line.removeprefix("penstock: error: ").strip() for _, line, _ in told]


def put(hub: LocalHub, id: str, **config: Any) -> None:
    files = {path.name: path.read_bytes() for path in model_path("text").iterdir()}
    own = json.loads(files["config.json"])
    hub.put(id, files | {"config.json": json.dumps(own | config).encode()})


def test_models_that_are_not_to_be_had(hub: LocalHub, home: Path, door: str) -> None:
    put(hub, "small/gated")
    hub.models["small/gated"].gated = True
    put(hub, "small/new", model_type="newer")
    put(hub, "small/heard", model_type="wav2vec2")
    put(hub, "small/own", model_type="own", auto_map={"AutoConfig": "own.Config"})
    pickles = {path.name: path.read_bytes() for path in model_path("text").iterdir()}
    del pickles["model.safetensors"]
    hub.put("small/old", pickles | {"pytorch_model.bin": b""})
    put(hub, "small/half")
    hub.breaks["model.safetensors"] = [20_000]
    names = ["small/half", "small/txet", "small/gated", "small/new", "small/heard", "small/own", "small/old"]
    expected = [
        r"small/half: expected a whole download, got one that broke off .*: load it again; .*",
        r"small/txet: expected a folder or a model on .*, got neither \(401\): check the name; if it is private, .*",
        r"small/gated: expected access to a gated model, got no login: ask for it at .*",
        r"small/new: model type 'newer': expected one that transformers .* has, got none; served are .*",
        r"small/heard: model type 'wav2vec2' is not served: transformers has no model for it .* served are .*",
        r"small/own: .*got one with code of its own: code that comes with a checkpoint is never run; served are .*",
        r"small/old: expected weights as safetensors, got pytorch_model\.bin: pickles can run code .*",
    ]
    for line, words in zip(lines(hub.url, home, door, *names), expected, strict=True):
        assert re.fullmatch(words, line), line
