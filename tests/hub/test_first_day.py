"""What a person reads on the first day: `penstock ask --model ID` with a model that cannot be had. One line says why,
and what to do, exit code 2, and no library says anything beside it.
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
from penstock.engine.brook.recipe import model_path
from PIL import Image
from visit import environment

# Runs the command once for each list of arguments; tells exit codes and what came on stderr through Python's own.
SCRIPT = """
import contextlib, io, json, sys
task = json.loads(sys.argv[1])
exec(task["before"], {})
from penstock.server.cli import main
told = []
for arguments in task["runs"]:
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


def lines(hub: str, home: Path, door: str, *models: str, before: str = "", **more: str) -> list[str]:
    """What is said of each model."""
    runs = [["ask", "--model", model, "--device", "cpu", door, "What do you see?"] for model in models]
    command = [sys.executable, "-c", SCRIPT, json.dumps({"runs": runs, "before": before})]
    done = subprocess.run(command, env=environment(hub, home, **more), capture_output=True, text=True, timeout=200)
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
    names = ["small/txet", "small/gated", "small/new", "small/heard", "small/own", "small/old"]
    expected = [
        r"small/txet: expected a folder or a model on .*, got neither \(401\): check the name; if it is private, .*",
        r"small/gated: expected access to a gated model, got no login: ask for it at .*",
        r"small/new: model type 'newer': expected one that transformers .* has, got none; served are .*",
        r"small/heard: model type 'wav2vec2' is not served: it takes sound, of which .* served are .*",
        r"small/own: .*got one with code of its own: code that comes with a checkpoint is never run; served are .*",
        r"small/old: expected weights as safetensors, got pytorch_model\.bin: pickles can run code .*",
    ]
    for line, words in zip(lines(hub.url, home, door, *names), expected, strict=True):
        assert re.fullmatch(words, line), line


def test_no_network_and_a_network_that_is_not_asked(hub: LocalHub, home: Path, door: str) -> None:
    nowhere = "http://127.0.0.1:9"
    (line,) = lines(nowhere, home, door, "small/text")
    words = rf"small/text: expected an answer from {nowhere}, got .*refused, and nothing of it in the cache: look .*"
    assert re.fullmatch(words, line), line
    (line,) = lines(nowhere, home, door, "small/text", HF_HUB_OFFLINE="1")
    assert line.endswith("got nothing of it in the cache: unset HF_HUB_OFFLINE to download it")
    hub.down = True
    (line,) = lines(hub.url, home, door, "small/text")
    assert line.endswith("got 503, and nothing of it in the cache: look at the network")


def test_half_a_download_and_a_full_disk(hub: LocalHub, home: Path, door: str) -> None:
    put(hub, "small/text")
    hub.breaks["model.safetensors"] = [20_000]
    (line,) = lines(hub.url, home, door, "small/text")
    assert re.fullmatch(r"small/text: expected a whole download, got one that broke off .*: load it again; .*", line)
    small = "import shutil, types; shutil.disk_usage = lambda path: types.SimpleNamespace(free=1 << 10)"
    (line,) = lines(hub.url, home, door, "small/text", before=small)
    assert re.fullmatch(r"small/text: expected .* of room for the download, got 1\.0 KiB free .*: make room, .*", line)
