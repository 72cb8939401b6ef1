"""Names become folders: what is downloaded, what is kept, and what is said where it cannot be."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path
from threading import Event

import pytest
from local_hub import TOKEN, LocalHub
from penstock.engine.loading.checkpoint import find
from penstock.errors import ModelError
from visit import environment, visit

from tests.fixtures.recipe import model_path

# What published models have beside what is served.
BESIDE = {
    "README.md": b"---\nlicense: apache-2.0\n---\n",
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "pytorch_model.bin": b"a pickle",
    "spk_dict.pt": b"a pickle",
    "tf_model.h5": b"another framework's",
    "flax_model.msgpack": b"another framework's",
    "consolidated.safetensors": b"the same weights once more",
    "modeling_own.py": b"raise SystemExit('this ran')\n",
    "onnx/model.onnx": b"another framework's",
    "original/config.json": b"{}",
    "original/model.safetensors": b"the same weights once more",
}
SERVED = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def text_files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in model_path("text").iterdir()}


def test_only_what_is_served_is_downloaded_and_only_once(hub: LocalHub, home: Path) -> None:
    commit = hub.put("small/text", text_files() | BESIDE)

    first = visit(hub.url, home, "small/text")

    folder = Path(first.found[0]["folder"])
    assert hub.files_asked() == SERVED == {path.name for path in folder.iterdir()}
    assert folder == home / "hub" / "models--small--text" / "snapshots" / commit
    assert all((folder / name).read_bytes() == text_files()[name] for name in SERVED)
    assert first.stderr == ""  # no terminal, no bars

    hub.asked.clear()
    assert visit(hub.url, home, "small/text").found == first.found
    assert [request for request in hub.asked if "small/text" in request] == ["GET /api/models/small/text/revision/main"]

    hub.asked.clear()
    assert visit(hub.url, home, f"small/text@{commit}", "small/text", HF_HUB_OFFLINE="1").found == [
        {"name": f"small/text@{commit}", "folder": str(folder)},
        {"name": "small/text", "folder": str(folder)},
    ]
    assert hub.asked == []


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: LocalHub, home: Path) -> None:
    old = hub.put("small/text", text_files() | {"config.json": b'{"model_type": "old"}'}, "v1.0")
    hub.put("small/text", text_files())
    found = visit(hub.url, home, "small/text@v1.0", f"small/text@{old}", "small/text", "small/text@v9").found
    assert [one.get("name") for one in found[:3]] == ["small/text@v1.0", f"small/text@{old}", "small/text"]
    assert found[0]["folder"] == found[1]["folder"] != found[2]["folder"]
    assert (Path(found[0]["folder"]) / "config.json").read_bytes() == b'{"model_type": "old"}'
    assert found[3]["error"] == (
        "small/text@v9: expected a branch, tag or commit, got 'v9', which the Hub does not know: see "
        f"{hub.url}/small/text"
    )


def test_an_id_that_the_hub_does_not_know(hub: LocalHub, home: Path) -> None:
    text = f"small/txet: expected a folder or a model on {hub.url}, got neither ({{}}): check the name"
    assert visit(hub.url, home, "small/txet", HF_TOKEN=TOKEN).error == text.format(404)
    assert visit(hub.url, home, "small/txet").error == (
        f"{text.format(401)}; if it is private, log in with `hf auth login` or set HF_TOKEN"
    )
    assert visit(hub.url, home, "small/txet", HF_TOKEN="hf_old").error == (
        "small/txet: expected a token that the Hub takes, got 401: log in with `hf auth login` or set HF_TOKEN again"
    )


def test_a_gated_model(hub: LocalHub, home: Path) -> None:
    hub.put("small/text", text_files())
    hub.models["small/text"].gated = True
    text = (
        f"small/text: expected access to a gated model, got {{}}: ask for it at {hub.url}/small/text, then log in with "
        "`hf auth login` or set HF_TOKEN"
    )
    assert visit(hub.url, home, "small/text").error == text.format("no login")
    assert visit(hub.url, home, "small/text", HF_TOKEN=TOKEN).error == text.format("403 for this account")
    assert hub.files_asked() == set()


def test_no_network(hub: LocalHub, home: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    without = (
        rf"small/text: expected an answer from {nowhere}, got ConnectError: .*refused, and {{}}: look at the network"
    )
    assert re.fullmatch(without.format("nothing of it in the cache"), visit(nowhere, home, "small/text").error)

    commit = hub.put("small/text", text_files(), "v1.0")
    assert "error" not in visit(hub.url, home, "small/text@v1.0", f"small/text@{commit}").found[0]
    found = visit(nowhere, home, "small/text@v1.0", f"small/text@{commit}", "small/text").found
    assert found[0]["folder"] == found[1]["folder"]
    assert re.fullmatch(without.format(r"in the cache revision v1\.0"), found[2]["error"])


def test_a_hub_that_is_down(hub: LocalHub, home: Path) -> None:
    hub.down = True
    assert visit(hub.url, home, "small/text").error == (
        f"small/text: expected an answer from {hub.url}, got 503, and nothing of it in the cache: look at the network"
    )


def test_offline_mode(hub: LocalHub, home: Path) -> None:
    hub.put("small/text", text_files(), "v1.0")
    text = "expected it in the cache, as HF_HUB_OFFLINE is set, got {}: unset HF_HUB_OFFLINE to download it"
    assert visit(hub.url, home, "small/text", HF_HUB_OFFLINE="1").error == (
        f"small/text: {text.format('nothing of it in the cache')}"
    )
    visit(hub.url, home, "small/text@v1.0")
    assert visit(hub.url, home, "small/text", HF_HUB_OFFLINE="1").error == (
        f"small/text: {text.format('in the cache revision v1.0')}"
    )


def shards() -> dict[str, bytes]:
    """The text model's files with weights in three shards, which are so many bytes."""
    files = text_files()
    weights = files.pop("model.safetensors")
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    third = len(weights) // 3
    parts = [weights[:third], weights[third : 2 * third], weights[2 * third :]]
    index = {"metadata": {}, "weight_map": {f"layer.{number}": name for number, name in enumerate(names)}}
    return files | dict(zip(names, parts, strict=True)) | {"model.safetensors.index.json": json.dumps(index).encode()}


def test_half_a_download(hub: LocalHub, home: Path) -> None:
    files = shards()
    hub.put("small/text", files)
    broken = "model-00002-of-00003.safetensors"
    hub.breaks[broken] = [len(files[broken]) // 2]

    error = visit(hub.url, home, "small/text").error
    assert re.fullmatch(
        r"small/text: expected a whole download, got one that broke off \(ReadError: .*\): load it again; files that "
        "are complete are kept",
        error,
    )
    kept = {name for name in files if name in hub.files_asked()} - {broken}
    offline = visit(hub.url, home, "small/text", HF_HUB_OFFLINE="1").error
    assert re.fullmatch(
        rf"small/text: expected it in the cache, as HF_HUB_OFFLINE is set, got a copy in the cache without .*{broken}"
        ".*: unset HF_HUB_OFFLINE to download it",
        offline,
    )

    hub.asked.clear()
    folder = Path(visit(hub.url, home, "small/text").found[0]["folder"])
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert broken in hub.files_asked() and not hub.files_asked() & kept
    assert not list(home.rglob("*.incomplete"))


def test_a_break_that_heals_is_not_seen(hub: LocalHub, home: Path) -> None:
    """A connection that ends early is taken up again behind the bytes that came."""
    files = text_files()
    hub.put("small/text", files)
    hub.closes["model.safetensors"] = [1000, 50_000]
    folder = Path(visit(hub.url, home, "small/text").found[0]["folder"])
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_disk_without_room(hub: LocalHub, home: Path) -> None:
    files = text_files()
    hub.put("small/text", files)
    size = len(files["model.safetensors"]) / (1 << 20)
    small = "import shutil, types; shutil.disk_usage = lambda path: types.SimpleNamespace(free=1 << 20)"
    cache = home / "hub"
    told = (
        f"small/text: expected {size:.1f} MiB of room for the download, got {{}} free in {cache}: make room, or set "
        "HF_HOME to another disk"
    )
    assert visit(hub.url, home, "small/text", before=small).error == told.format("1.0 MiB")
    assert "model.safetensors" not in hub.files_asked()

    full = (
        "import errno, os, huggingface_hub.file_download as library\n"
        "whole = library.http_get\n"
        "def http_get(url, *args, **options):\n"
        "    if 'large' in url:\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    return whole(url, *args, **options)\n"
        "library.http_get = http_get\n"
    )
    error = visit(hub.url, home, "small/text", before=full).error
    assert re.fullmatch(re.escape(told).replace(r"\{\}", r"[\d.]+ [KMG]iB"), error)


def test_progress_is_shown_on_a_terminal(hub: LocalHub, home: Path) -> None:
    hub.put("small/text", text_files())
    mine, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from penstock.engine.runner.library import transformers; import visit\n"
        "print(visit.main({'load': False, 'before': '', 'names': ['small/text']}))"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    with (
        os.fdopen(mine, "rb", buffering=0) as terminal,
        subprocess.Popen(command, env=environment(hub.url, home), stdout=subprocess.PIPE, stderr=theirs) as process,
    ):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := terminal.read(4096):
                shown += piece
        assert process.stdout is not None and b"small--text" in process.stdout.read()
    size = f"{len(text_files()['model.safetensors']) / 1e6:.2f}MB"
    assert re.search(rf"100%\|█+\| {size} / {size}", shown.decode()), shown


@pytest.mark.parametrize("name", ["./model", "/no/where", "models/small/text", "~/model", "a b", "model.git", "m\\\\n"])
def test_what_looks_like_a_path_is_not_asked_for(name: str) -> None:
    text = f"{name}: expected the folder of a checkpoint, or an id on the Hub (org/name), got no such folder"
    with pytest.raises(ModelError, match=rf"^{re.escape(text)}$"):
        find(name, None, Event())
    with pytest.raises(ModelError, match="got no such folder$"):
        find(Path("small/text"), None, Event())  # a Path is a folder


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"^{tmp_path}: expected a checkpoint with a config\.json, got none$"):
        find(tmp_path, None, Event())
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ModelError, match=r"or an id on the Hub \(org/name\), got a file$"):
        find(str(file), None, Event())
    with pytest.raises(ModelError, match=r": expected no revision, as it is a folder, got 'main'$"):
        find(model_path("text"), "main", Event())


def test_a_model_that_is_no_checkpoint(hub: LocalHub, home: Path) -> None:
    hub.put("small/gguf", {"README.md": b"", "text.gguf": b"..."})
    (found,) = visit(hub.url, home, "small/gguf").found
    assert found["error"] == "small/gguf: expected a checkpoint with a config.json, got none"
    assert hub.files_asked() == set()


def test_weights_as_pickles_are_refused_before_they_are_downloaded(hub: LocalHub, home: Path) -> None:
    files = text_files()
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    hub.put("small/text", files)
    assert visit(hub.url, home, "small/text").error == (
        "small/text: expected weights as safetensors, got pytorch_model.bin: pickles can run code when they are read. "
        "Where you trust them, write them again with `save_pretrained`"
    )
    assert hub.files_asked() == files.keys() - {"pytorch_model.bin"}


def test_an_index_names_safetensors_that_are_there(hub: LocalHub, home: Path) -> None:
    files = shards()
    lost = {name: data for name, data in files.items() if name != "model-00002-of-00003.safetensors"}
    hub.put("small/lost", lost)
    hub.put("small/odd", files | {"model.safetensors.index.json": b"[]"})
    hidden = json.dumps({"weight_map": {"a": "model-00001-of-00003.safetensors", "b": "hidden.bin"}}).encode()
    hub.put("small/hidden", files | {"model.safetensors.index.json": hidden, "hidden.bin": b"a pickle"})
    every = json.dumps({"weight_map": {"a": "*.safetensors"}}).encode()
    hub.put("small/every", files | {"model.safetensors.index.json": every})
    errors = [
        one["error"] for one in visit(hub.url, home, "small/lost", "small/odd", "small/hidden", "small/every").found
    ]
    index = "model.safetensors.index.json"
    assert errors[0] == f"small/lost: expected the files that {index} names, got no model-00002-of-00003.safetensors"
    assert errors[1].startswith(f"small/odd: expected a weight_map in {index}, got none")
    assert errors[2].startswith("small/hidden: expected weights as safetensors, got hidden.bin: pickles can run code")
    assert errors[3] == f"small/every: expected the files that {index} names, got no *.safetensors"
    assert not {name for name in hub.files_asked() if name.endswith((".safetensors", ".bin"))}
