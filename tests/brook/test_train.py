"""Training from nothing, and on from what it has left: a few steps of each, on a few voices."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from penstock.demos.brook import speech, teach, train
from penstock.demos.brook.batch import Batch, Batches
from penstock.demos.brook.sound import Bank
from penstock.demos.brook.words import sentences
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from tests.engine.acts import Client
from tests.engine.rig import Rig

SHORT = ["--rows", "900", "--seconds", "1", "2", "--steps", "2", "--every", "2", "--trial", "1"]
PLAIN = (speech._normed, speech._turned, speech._gated)
Train = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture
def voices(monkeypatch: pytest.MonkeyPatch, bank: Bank) -> Iterator[Bank]:
    """The few voices that there are here; afterwards torch has its threads again."""
    for module in (teach, train):
        monkeypatch.setattr(module, "training_bank", lambda: bank)
    monkeypatch.setattr(train, "Bank", lambda *_: bank)
    threads = torch.get_num_threads()
    yield bank
    torch.set_num_threads(threads)


@pytest.fixture
def quick(voices: Bank, monkeypatch: pytest.MonkeyPatch) -> Bank:
    """Training that compiles nothing, with a tokenizer of few sentences."""
    monkeypatch.setattr(speech, "_fast", PLAIN)
    monkeypatch.setattr(train, "sentences", lambda: sentences(scenes=20))
    return voices


@pytest.fixture
def trained(quick: Bank, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs the command with these options."""

    def run(out: Path, *options: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        monkeypatch.setattr(sys, "argv", ["train", *SHORT, *options, "--threads", "1", "--out", str(out)])
        train.main()
        return load_file(out / "model" / "model.safetensors")

    return run


def test_a_seed_gives_the_same_weights_and_they_are_served(trained: Train, tmp_path: Path) -> None:
    """With what is seen taken from the scene, then with the towers; the result is a checkpoint like any other."""
    first = trained(tmp_path / "one", "--oracle", "--seed", "5")
    again = trained(tmp_path / "two", "--oracle", "--seed", "5")
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)

    went_on = trained(tmp_path / "on", "--resume", str(tmp_path / "one" / "training.pt"), "--towers", "0.1")
    moved = [name for name in first if not torch.equal(first[name], went_on[name])]
    assert all(any(name.startswith(part) for name in moved) for part in ("visual.", "model.layers."))

    client = Client(Rig(load(tmp_path / "on" / "model", EngineConfig())).open(format="live"))
    client.do("pair")
    client.do("ask", max_tokens=4)
    client.session.rig.run()
    assert client.session.ids()


def test_another_seed_draws_other_lessons(quick: Bank, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the command learns from is drawn by its seed."""
    drawn: list[Batch] = []

    class Drawn(Exception):
        """What was to be learned is here."""

    def learn(data: Batches, **_: object) -> None:
        drawn.append(next(iter(data)))
        raise Drawn

    monkeypatch.setattr(train, "DataLoader", learn)
    for seed in ("5", "5", "6"):
        monkeypatch.setattr(sys, "argv", ["train", *SHORT, "--oracle", "--seed", seed, "--out", str(tmp_path)])
        with pytest.raises(Drawn):
            train.main()
    first, again, other = (batch.ids for batch in drawn)
    assert torch.equal(first, again) and not torch.equal(first, other)


def planned(device: str, out: Path) -> list[list[str]]:
    """What `make brook` would run, in its order."""
    words = ["BIN=.", f"OUT={out}", f"DEVICE={device}"]
    told = subprocess.run(
        ["make", "--no-print-directory", "-n", "-f", "demos/brook/recipe.mk", *words],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"]},  # not as a part of the `make test` that may run this
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [shlex.split(line) for line in told.replace("\\\n", "").splitlines()]


def without(words: list[str], *names: str) -> list[str]:
    """A command without these options and their values, of which the second is a number."""
    left = " ".join(words)
    for name in names:
        left = re.sub(rf" {name} \S+( [\d.]+(?= ))?", "", left)
    return left.split()


def follow(plan: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lesson two steps long and on the CPU."""
    for command, *words in plan:
        if command != "./python":
            subprocess.run([command, *words], check=True)
            continue
        module, *options = without(words[1:], "--steps", "--rows", "--device", "--workers", "--seconds")
        options += ["--steps", "2", "--threads", "1", "--workers", "1"]
        options += ["--batch", "12"] if module.endswith("teach") else ["--rows", "900", "--trial", "1"]
        options += ["--seconds", "1", "2"] if module.endswith("train") else []
        monkeypatch.setattr(sys, "argv", [module, *options])
        importlib.import_module(module).main()


def test_the_recipe_from_nothing_makes_a_checkpoint(
    quick: Bank, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    follow(planned("cpu", tmp_path / "taught"), monkeypatch)
    assert load_file(tmp_path / "taught" / "brook" / "model" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiles first
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_recipe_as_it_stands_makes_a_checkpoint(
    voices: Bank, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str
) -> None:
    """Compiled, with the whole tokenizer; here on the CPU in either case."""
    follow(planned(device, tmp_path / "taught"), monkeypatch)
    assert load_file(tmp_path / "taught" / "brook" / "model" / "model.safetensors")


def test_the_recipe_for_a_card_has_the_same_lessons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In larger batches, with other rates; all of its options are taken."""
    parsed: list[argparse.Namespace] = []
    monkeypatch.setattr(train, "Learner", lambda options: options)
    monkeypatch.setattr(train, "train", parsed.append)
    threads = torch.get_num_threads()
    plain, cards = (planned(device, tmp_path) for device in ("cpu", "cuda"))
    assert sum(words[words.index("--device") + 1] == "cuda" for words in cards if "--device" in words) == 6
    for words, card in zip(plain, cards, strict=True):
        if words[2:3] != ["penstock.demos.brook.train"]:
            assert without(words, "--device", "--workers") == without(card, "--device", "--workers")
            continue
        for one in (words, card):
            monkeypatch.setattr(sys, "argv", one[2:])
            train.main()
        own, other = (vars(options) for options in parsed[-2:])
        differ = {name for name in own if own[name] != other[name]}
        assert {"device", "workers", "rows", "steps"} <= differ
        assert differ <= {"device", "workers", "rows", "steps", "rate", "hard", "towers", "seconds"}
    torch.set_num_threads(threads)
    assert len(parsed) == 6


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiles first
@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_what_is_compiled_is_what_stands_there(number: int) -> None:
    dice = torch.Generator().manual_seed(0)
    turn = [torch.randn(2, 7, 1, 16, generator=dice) for _ in range(2)]
    given: list[list[torch.Tensor]] = [
        [torch.randn(2, 7, 64, generator=dice)],
        [torch.randn(2, 7, 5, 32, generator=dice), *turn],
        [torch.randn(2, 7, 64, generator=dice)],
    ]
    x, *rest = given[number]
    told = []
    for run in (PLAIN[number], speech._fast[number]):
        x = x.detach().clone().requires_grad_()
        y = run(x, *rest)
        y.float().square().sum().backward()
        assert x.grad is not None
        told.append((y.detach(), x.grad))
    for plain, compiled in zip(*told, strict=True):
        torch.testing.assert_close(compiled, plain, atol=2e-2, rtol=2e-2)


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
