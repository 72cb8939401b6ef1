"""Training from nothing, and on from what it has left: a few steps of each, on a few voices."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from penstock.demos.brook import teach, train
from penstock.demos.brook.sound import Bank
from penstock.engine.config import EngineConfig
from penstock.engine.core import load
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from tests.engine.acts import Client
from tests.engine.rig import Rig

pytestmark = pytest.mark.timeout(900)  # compiles first

SHORT = ["--rows", "900", "--seconds", "1", "2", "--steps", "2", "--every", "2", "--trial", "1"]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, bank: Bank):
    """Runs the command with these options."""
    monkeypatch.setattr(train, "training_bank", lambda: bank)
    monkeypatch.setattr(train, "Bank", lambda *_: bank)

    def run(out: Path, *options: str) -> dict[str, torch.Tensor]:
        threads = torch.get_num_threads()
        torch.manual_seed(0)
        monkeypatch.setattr(sys, "argv", ["train", *SHORT, *options, "--threads", "1", "--out", str(out)])
        train.main()
        torch.set_num_threads(threads)
        return load_file(out / "model" / "model.safetensors")

    return run


def test_a_seed_gives_the_same_weights_and_they_are_served(trained, tmp_path: Path) -> None:
    """With what is seen taken from the scene, then with the towers; the result is a checkpoint like any other."""
    first = trained(tmp_path / "one", "--oracle", "--seed", "5")
    again = trained(tmp_path / "two", "--oracle", "--seed", "5")
    other = trained(tmp_path / "three", "--oracle", "--seed", "6")
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)

    went_on = trained(tmp_path / "on", "--resume", str(tmp_path / "one" / "training.pt"), "--towers", "0.1")
    moved = [name for name in first if not torch.equal(first[name], went_on[name])]
    assert all(any(name.startswith(part) for name in moved) for part in ("visual.", "model.layers."))

    client = Client(Rig(load(tmp_path / "on" / "model", EngineConfig())).open(format="live"))
    client.do("pair")
    client.do("ask", max_tokens=4)
    client.session.rig.run()
    assert client.session.ids()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_recipe_from_nothing_makes_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, bank: Bank, tmp_path: Path, device: str
) -> None:
    """What `make brook` would run, in its order, each lesson two steps long, here on the CPU in either case."""
    words = ["BIN=.", f"OUT={tmp_path}/taught", f"DEVICE={device}"]
    plan = subprocess.run(
        ["make", "--no-print-directory", "-n", "-f", "demos/brook/recipe.mk", *words],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"]},  # not as a part of the `make test` that may run this
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    plan = re.sub(r"--steps \d+", "--steps 2 --threads 1", plan.replace("\\\n", ""))
    plan = re.sub(r"--rows \d+", "--rows 900 --trial 1", plan)
    assert plan.count(f"--device {device}") == 6
    plan = re.sub(r"--workers \d+", "--workers 2", plan.replace(f"--device {device}", "--device cpu"))
    plan = re.sub(r"--seconds \S+ \S+", "--seconds 1 2", plan)
    plan = plan.replace("brook.teach", "brook.teach --batch 12")
    for module in (teach, train):
        monkeypatch.setattr(module, "training_bank", lambda: bank)
    monkeypatch.setattr(train, "Bank", lambda *_: bank)
    threads = torch.get_num_threads()
    for command, *words in map(shlex.split, plan.splitlines()):
        if command == "./python":
            monkeypatch.setattr(sys, "argv", words[1:])
            importlib.import_module(words[1]).main()
        else:
            subprocess.run([command, *words], check=True)
    torch.set_num_threads(threads)
    assert load_file(tmp_path / "taught" / "brook" / "model" / "model.safetensors")


def test_each_process_draws_data_of_its_own() -> None:
    """The first draws what one alone would draw."""
    one, two = (iter(DataLoader(teach.Sights(3, 8), batch_size=None, num_workers=count)) for count in (1, 2))
    alone, together = ([next(drawn)[0] for _ in range(4)] for drawn in (one, two))
    assert torch.equal(together[0], alone[0]) and torch.equal(together[2], alone[1])
    assert not any(torch.equal(other, own) for other in (together[1], together[3]) for own in alone)
    assert not torch.equal(together[1], together[3])


def test_fit_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["teach", "fit", "--steps", "1", "--out", str(tmp_path / "fit.pt")])
    with pytest.raises(SystemExit) as stopped:
        teach.main()
    assert stopped.value.code == 2 and "expected --sight FILE" in capsys.readouterr().err
