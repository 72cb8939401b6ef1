"""Runs the towers' lessons: `python -m penstock.demos.brook.teach sight|fit|hearing --steps N --out FILE`.

In: a seed. Out: a file with one tower's weights (`torch.save` of a state dict, for train.py). Data is drawn while it
runs; nothing is read but espeak-ng's voices.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from .bank import training_bank
from .batch import dice
from .checkpoint import HIDDEN, build_model, build_processor, build_tokenizer, members
from .descent import Descent
from .draw import Lens, Painter
from .senses import BLOCK_FRAMES, SIDE, hear, patches, power, see
from .towers import HearingHeads, Oracle, SightHeads, hearing_labels, sight_labels
from .world import SceneMaker, Wish

RATE = 2e-3


class Sights(IterableDataset):
    """Batches of frame pairs with their labels; half of them lie on a change. Nothing is heard in these scenes."""

    def __init__(self, seed: int, batch: int) -> None:
        self._seed, self._batch = seed, batch

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        random = dice(self._seed)
        maker = SceneMaker(random, {})
        while True:
            rows = [row for _ in range(self._batch // 4) for row in self._pairs(random, maker)]
            pairs, *labels = (np.stack(column) for column in zip(*rows, strict=True))
            yield pairs, *labels

    def _pairs(self, random: np.random.Generator, maker: SceneMaker) -> Iterator[tuple[np.ndarray, ...]]:
        draw = random.random()
        foreign = str(random.choice(["noise", "texture", "photo"])) if draw < 0.08 else ""
        most = 0 if draw > 0.97 else 4
        scene = maker.scene(Wish(seconds=10.0, sound_gap=0, change_gap=1.3, foreign=foreign, most_things=most or 1))
        painter, camera = Painter(scene, SIDE), Lens.drawn(random)
        for number in range(4):
            first = float(random.uniform(0, 9.4))
            if number % 2 and scene.changes:
                change = scene.changes[int(random.integers(len(scene.changes)))]
                first = float(np.clip(random.uniform(change.start - 0.5, change.stop), 0, 9.4))
            times = (first, first + 0.5 if random.random() < 0.9 else first)
            pair = np.stack([camera.take(painter.picture(moment), random) for moment in times])
            yield pair, *sight_labels(scene, times), np.array(bool(foreign), np.float32)


class Sounds(IterableDataset):
    """Batches of blocks of sound with their labels, cut as a stream cuts them."""

    def __init__(self, seed: int, batch: int, bank: Any, banks: Tensor) -> None:
        self._seed, self._batch, self._bank, self._banks = seed, batch, bank, banks

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        random = dice(self._seed)
        maker = SceneMaker(random, self._bank.seconds)
        while True:
            rows = [row for _ in range(self._batch // 6) for row in self._blocks(random, maker)]
            yield tuple(np.stack(column) for column in zip(*rows, strict=True))

    def _blocks(self, random: np.random.Generator, maker: SceneMaker) -> Iterator[tuple[np.ndarray, ...]]:
        scene = maker.scene(Wish(seconds=7.0, change_gap=0, sound_gap=0.5, beeps=0.25, others=0.2))
        mel = power(self._bank.track(scene), self._banks)
        loudest = -math.inf
        shift = int(random.integers(0, BLOCK_FRAMES))
        for number in range(6):
            first = shift + number * BLOCK_FRAMES
            frames = BLOCK_FRAMES if random.random() < 0.9 else int(random.integers(6, BLOCK_FRAMES))
            block = mel[:, first : first + BLOCK_FRAMES]
            loudest = max(loudest, float(block[:, :frames].max()))
            features = (torch.clamp(block, min=loudest - 8) + 4) / 4
            yield features.numpy(), np.array(frames), *hearing_labels(scene, first / 50, frames)


def teach_sight(tower: Any, options: argparse.Namespace) -> None:
    """Prints the share of fields with something in them that are read right: shape, colour, size, now and before."""
    heads = SightHeads(HIDDEN).to(options.device)

    def lesson(pairs: Tensor, labels: Tensor, offsets: Tensor, foreign: Tensor) -> tuple[Tensor, Any]:
        features = see(tower, patches(pairs), 8, 8)
        return heads.loss(features, labels, offsets, foreign), lambda: heads.right(features.float(), labels)

    _run(Sights(options.seed, options.batch), lesson, tower, heads, options)


def fit_sight(tower: Any, options: argparse.Namespace) -> None:
    """Teach a tower that sees to say it as the oracle does. Prints the error by field: with a thing, without."""
    oracle = Oracle(HIDDEN).to(options.device)
    tower.load_state_dict(torch.load(options.sight, map_location=options.device))

    def lesson(pairs: Tensor, labels: Tensor, offsets: Tensor, foreign: Tensor) -> tuple[Tensor, Any]:
        errors = (see(tower, patches(pairs), 8, 8).float() - oracle(labels, offsets)).square().mean(-1)
        some = (labels > 0).any(-1)
        parts = errors[some].mean(), errors[~some].mean()
        return parts[0] + 0.5 * parts[1], lambda: [float(part.detach()) for part in parts]

    _run(Sights(options.seed, options.batch), lesson, tower, nn.Module(), options)


def teach_hearing(tower: Any, options: argparse.Namespace) -> None:
    """Prints the share of rows that are heard right: those with a sound, those without."""
    heads = HearingHeads(HIDDEN).to(options.device)
    filters = build_processor(build_tokenizer([])).feature_extractor.mel_filters
    data = Sounds(options.seed, options.batch, training_bank(), torch.from_numpy(filters).float())

    def lesson(mels: Tensor, frames: Tensor, kinds: Tensor, onsets: Tensor) -> tuple[Tensor, Any]:
        features = hear(tower, mels, frames)
        return heads.loss(features, kinds, onsets), lambda: heads.right(features.float(), kinds)

    _run(data, lesson, tower, heads, options)


def _run(data: IterableDataset, lesson: Any, tower: nn.Module, heads: nn.Module, options: argparse.Namespace) -> None:
    loader = iter(DataLoader(data, batch_size=None, num_workers=options.workers, prefetch_factor=4))
    down = Descent([(tower, RATE)], [(heads, RATE)], options.steps, cooling=0.7)
    device = torch.device(options.device)
    started, losses = time.monotonic(), []
    for step in range(1, options.steps + 1):
        batch = [column.to(device) for column in next(loader)]
        with device, torch.autocast(device.type, torch.bfloat16):
            loss, told = lesson(*batch)
        down.step(loss)
        losses.append(float(loss.detach()))
        if step % 50 == 0 or step == options.steps:
            shares = " ".join(f"{share:.3f}" for share in told())
            spent = time.monotonic() - started
            mean = np.mean(losses[-50:])
            print(f"{options.tower}: step {step} loss {mean:.3f} ({shares}) {spent:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m penstock.demos.brook.teach", description=__doc__)
    parser.add_argument("tower", choices=("sight", "fit", "hearing"))
    parser.add_argument("--sight", type=Path, help="what `sight` wrote, for `fit`")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw the data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.tower == "fit" and options.sight is None:
        parser.error("fit: expected --sight FILE, what `sight` wrote, got none")
    torch.set_num_threads(options.threads)
    sight, hearing, _ = members(build_model(build_tokenizer([])).to(options.device))
    tower, teach = {
        "sight": (sight, teach_sight),
        "fit": (sight, fit_sight),
        "hearing": (hearing, teach_hearing),
    }[options.tower]
    teach(tower, options)
    torch.save(tower.cpu().state_dict(), options.out)


if __name__ == "__main__":
    main()
