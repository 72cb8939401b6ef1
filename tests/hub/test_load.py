"""Models from the Hub are served: loaded, named, cancelled, refused; in processes of their own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

from layout import publish_omni
from local_hub import LocalHub
from visit import environment, visit

from tests.fixtures.recipe import model_path

NEEDED = {
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "model.safetensors.index.json",
    *(f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)),
}

CANCEL = """
import asyncio, sys
from pathlib import Path
from penstock import Engine

def begun():
    try:
        return any(file.stat().st_size == 0 for file in Path(sys.argv[1]).rglob("*.incomplete"))
    except FileNotFoundError:  # the download has taken something away meanwhile
        return False

async def main():
    task = asyncio.create_task(Engine.load("small/text"))
    while not begun():
        await asyncio.sleep(0.01)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("cancelled", flush=True)

asyncio.run(main())
"""


def listings(hub: LocalHub) -> list[str]:
    return [request for request in hub.asked if "/small/" in request or "/large/" in request]


def test_a_whole_omni_is_downloaded_once_and_loaded(hub: LocalHub, home: Path, tmp_path: Path) -> None:
    publish_omni(tmp_path / "whole")
    hub.put("small/omni", tmp_path / "whole", "v1.0")
    end, other = json.loads((tmp_path / "whole" / "generation_config.json").read_text())["eos_token_id"]

    assert visit(hub.url, home, "small/omni@v1.0").found[0]["name"] == "small/omni@v1.0"
    assert hub.files_asked() == NEEDED

    hub.asked.clear()
    visit(hub.url, home, "small/omni@v1.0")
    assert listings(hub) == ["GET /api/models/small/omni/revision/v1.0"]

    hub.asked.clear()
    found = visit(hub.url, home, "small/omni@v1.0", load=True, HF_HUB_OFFLINE="1").found
    assert found == [{"name": "small/omni@v1.0", "stop_ids": sorted([end, other])}]
    assert hub.asked == []


def test_code_of_a_checkpoint_is_not_downloaded_and_never_run(hub: LocalHub, home: Path) -> None:
    files = {path.name: path.read_bytes() for path in model_path("text").iterdir()}
    config, words = json.loads(files["config.json"]), json.loads(files["tokenizer_config.json"])
    own = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    own_words = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}

    def put(id: str, name: str, value: dict[str, Any]) -> None:
        code = b"raise SystemExit('this ran')"
        hub.put(id, files | {"own.py": code, name: json.dumps(value).encode()})

    put("small/own", "config.json", config | own | {"model_type": "own"})
    put("small/new", "config.json", config | {"model_type": "newer"})
    # Where the library has a class of its own, code does not matter.
    put("small/both", "config.json", config | own)
    put("small/words", "tokenizer_config.json", words | own_words)

    found = visit(hub.url, home, "small/own", "small/new", "small/both", "small/words", load=True).found

    assert re.fullmatch(
        r"small/own: expected a checkpoint whose classes are all in transformers [\d.]+, got one with code of its own: "
        "code that comes with a checkpoint is never run; served are gemma3, .*, and others that pass a trial",
        found[0]["error"],
    )
    assert re.fullmatch(
        r"small/new: model type 'newer': expected one that transformers [\d.]+ has, got none; served are gemma3, .*",
        found[1]["error"],
    )
    assert [one.get("name") for one in found[2:]] == ["small/both", "small/words"]
    assert hub.files_asked() <= files.keys(), "what a load asks for"  # own.py is not among them
    for name in ("own", "new"):  # refused before the weights came
        assert not list((home / "hub" / f"models--small--{name}").rglob("model.safetensors"))


def test_a_cancelled_load_ends_its_download(hub: LocalHub, home: Path) -> None:
    hub.put("small/text", model_path("text"))
    gate = hub.gates["model.safetensors"] = Event()
    with subprocess.Popen(
        [sys.executable, "-c", CANCEL, str(home)],
        env=environment(hub.url, home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        told = process.stdout.readline()
        gate.set()
        assert process.wait(timeout=60) == 0 and told == "cancelled\n", process.stderr.read()
    assert not list(home.rglob("model.safetensors")) and not list(home.rglob("*.incomplete"))


def test_the_command_serves_a_model_of_the_hub(hub: LocalHub, home: Path) -> None:
    hub.put("small/text", model_path("text"), "v1.0")
    command = [sys.executable, "-m", "penstock.server.cli", "serve", "--port", "0", "small/text", "--revision", "v1.0"]
    with subprocess.Popen(
        command, env=environment(hub.url, home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline().startswith("penstock: serving on http://127.0.0.1:")
            assert process.stdout.readline().split()[:2] == ["model", "small/text@v1.0"]
        finally:
            process.send_signal(signal.SIGTERM)
        told = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert "Traceback" not in told and "HTTP Request" not in told  # of the download
