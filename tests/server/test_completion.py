"""`penstock completion`: a real bash completes the command line with the script; every shell gets one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from penstock.server.cli import main

# Calls the function that the script has registered as bash would on TAB behind the given words.
TAB = r"""
source "$1"; shift
name=$(complete -p penstock | sed 's/.*-F \([^ ]*\).*/\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
"$name" penstock "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "penstock.bash"
    path.write_text(capsys.readouterr().out)
    return path


def complete(script: Path, folder: Path, *words: str) -> list[str]:
    command = ["bash", "--norc", "-c", TAB, "bash", str(script), *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


def test_bash_can_read_it(script: Path) -> None:
    ran = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_bash_completes(script: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    cases = {
        ("penstock", "se"): ["serve"],
        ("penstock", "serve", "--ho"): ["--host"],
        ("penstock", "ask", "--format", ""): ["auto", "turns", "live", "interrupt", "per-frame", "units"],
        ("penstock", "ask", "cl"): ["clip.mp4"],
        ("penstock", "serve", "--api-key-file", "cl"): ["clip.mp4"],
        ("penstock", "bench", "app"): ["append"],
        ("penstock", "completion", "f"): ["fish"],
    }
    assert {words: complete(script, tmp_path, *words) for words in cases} == cases


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "#compdef penstock"), ("fish", "complete -c penstock")])
def test_other_shells_get_one(shell: str, mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert mark in out
    for command in ("serve", "ask", "devices", "trace", "bench", "completion"):
        assert command in out
