"""Trains Brook: `python -m penstock.demos.brook.train --sight FILE --hearing FILE --steps N --out FOLDER`.

In: towers that teach.py has taught. Out: in the folder `model` what `Engine.load` takes, and `training.pt` to go on
from. Data is drawn while it runs, from a seed.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from .bank import training_bank
from .batch import Batch, Batches
from .checkpoint import HIDDEN, build_model, build_processor, build_tokenizer, members, save
from .descent import Descent
from .hints import TAPS, HintHeads
from .layout import IGNORED, Vocabulary
from .senses import hear, patches, see
from .sound import Bank
from .speech import speak, visible
from .start import SCALE, begin
from .towers import Oracle
from .words import sentences

HINTED = 0.05  # what a hint counts beside an answer


class Learner:
    """The model with what training needs beside it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.tokenizer = build_tokenizer(sentences())
        self.processor = build_processor(self.tokenizer)
        self.model: Any = build_model(self.tokenizer)
        self.oracle = Oracle(HIDDEN)
        self.heads = HintHeads(HIDDEN)
        self.vocabulary = Vocabulary(self.tokenizer)
        self.sight, self.hearing, self.language = members(self.model)
        begin(self.language, self.model.lm_head, self.tokenizer)
        if options.resume:
            self._resume(options.resume)
        if options.sight:
            self.sight.load_state_dict(torch.load(options.sight))
        if options.hearing:
            self.hearing.load_state_dict(torch.load(options.hearing))
        for part in (self.model, self.oracle, self.heads):
            part.to(self.device)

    def _resume(self, path: Path) -> None:
        """Go on from a `training.pt`, or from a folder with a checkpoint."""
        if path.is_dir():
            stored = type(self.model).from_pretrained(path, dtype=torch.float)
            self.model.load_state_dict(stored.state_dict())
            return
        kept = torch.load(path, map_location="cpu")
        self.model.load_state_dict(kept["model"])
        self.heads.load_state_dict(kept["heads"], strict=False)

    def batches(self, seed: int, bank: Bank, rows: int, seconds: tuple[float, float]) -> Batches:
        banks = torch.from_numpy(self.processor.feature_extractor.mel_filters).float()
        drawn, hard = not self.options.oracle, self.options.hard
        return Batches(seed, rows, seconds, bank, self.vocabulary, banks, drawn, hard)

    def seen(self, batch: Batch) -> Tensor:
        """Features of the pictures, by the tower or by the oracle."""
        if not self.options.oracle:
            return see(self.sight, patches(batch.pictures), 8, 8).float()
        features = self.oracle(batch.fields, batch.offsets)
        return features + torch.randn_like(features) * 0.5 * SCALE

    def logits(self, batch: Batch, seen: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits and labels of the rows after which something is said; and the rows at the taps of the hints."""
        embeds = self.language.embed_tokens(batch.ids).flatten(0, 1)
        if len(seen):
            embeds = embeds.index_copy(0, batch.video_at, seen.flatten(0, 1).to(embeds.dtype))
        if len(batch.audio_at):
            heard = hear(self.hearing, batch.mels, batch.frames).flatten(0, 1)[batch.audio_from]
            embeds = embeds.index_copy(0, batch.audio_at, heard.to(embeds.dtype))
        embeds = embeds.view(*batch.ids.shape, -1)
        hidden, middle = speak(self.language, embeds, batch.positions, visible(batch.branches), TAPS)
        said = batch.labels != IGNORED
        return self.model.lm_head(hidden[said]).float(), batch.labels[said], middle

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """How wrong what is said is; what is found out on the way; and, where the towers learn, how far the sight is
        from the oracle's."""
        seen = self.seen(batch)
        logits, labels, middle = self.logits(batch, seen)
        early, later, late = middle
        hints = self.heads.loss(early, later, late, batch.hints)
        weight = batch.weights[batch.labels != IGNORED]
        losses = functional.cross_entropy(logits, labels, reduction="none")
        said = (losses * weight).sum() / weight.sum()
        if self.options.oracle or not self.options.towers or not len(seen):
            return said, hints, torch.zeros(())
        errors = (seen - self.oracle(batch.fields, batch.offsets)).square().mean(-1)
        some = (batch.fields > 0).any(-1)
        return said, hints, 1.4 * (errors[some].sum() / some.sum().clamp(min=1) + 0.5 * errors[~some].mean())

    @torch.no_grad()
    def right(self, batches: list[Batch]) -> dict[str, tuple[int, int]]:
        """By kind: how much of what is said is right to the last token, and how much there is."""
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for batch in batches:
            batch = batch.to(self.device)
            with self.device, torch.autocast(self.device.type, torch.bfloat16):
                logits, _, _ = self.logits(batch, self.seen(batch))
            guess = torch.full_like(batch.labels, IGNORED)
            guess[batch.labels != IGNORED] = logits.argmax(-1)
            same = (guess == batch.labels) | (batch.labels == IGNORED)
            for number, lesson in enumerate(batch.lessons):
                for kind, first, stop in lesson.rows.said:
                    counts[kind][0] += bool(same[number, first:stop].all())
                    counts[kind][1] += 1
        return {kind: (right, count) for kind, (right, count) in counts.items()}

    def save(self) -> None:
        folder = self.options.out
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / "draft.pt"
        torch.save({"model": self.model.state_dict(), "heads": self.heads.state_dict()}, draft)
        draft.rename(folder / "training.pt")
        save(self.model, self.processor, folder / "model")


def descent(learner: Learner) -> Descent:
    """The language model at the full rate, the towers at their share of it; 0 freezes them."""
    options = learner.options
    rate, slow = options.rate, options.rate * options.towers
    for tower in (learner.sight, learner.hearing):
        tower.requires_grad_(options.towers > 0)
    towers = [(learner.sight, slow), (learner.hearing, slow)] if options.towers else []
    words = [learner.language.embed_tokens, learner.language.norm, learner.model.lm_head, learner.heads]
    return Descent(
        [(learner.language.layers, rate), *towers], [(module, rate) for module in words], options.steps, options.cooling
    )


def train(learner: Learner) -> None:
    options = learner.options
    data = learner.batches(options.seed, training_bank(), options.rows, tuple(options.seconds))
    loader = iter(DataLoader(data, batch_size=None, num_workers=options.workers, prefetch_factor=4))
    unseen = iter(learner.batches(99, Bank(range(10_000, 10_008), 1), options.rows, tuple(options.seconds)))
    trial = [next(unseen) for _ in range(options.trial)]
    down = descent(learner)
    started, losses = time.monotonic(), []
    for step in range(1, options.steps + 1):
        batch = next(loader).to(learner.device)
        with learner.device, torch.autocast(learner.device.type, torch.bfloat16):
            parts = learner.loss(batch)
        down.step(parts[0] + HINTED * parts[1] + parts[2])
        losses.append([float(part.detach()) for part in parts])
        if step % 50 == 0:
            said, hinted, seen = np.mean(losses[-50:], axis=0)
            passed = time.monotonic() - started
            print(f"step {step} loss {said:.4f} hints {hinted:.4f} sight {seen:.4f} {passed:.0f} s", flush=True)
        if step % options.every == 0 or step == options.steps:
            shares = learner.right(trial)
            total = sum(right for right, _ in shares.values()) / sum(count for _, count in shares.values())
            table = " ".join(f"{kind}:{100 * right / count:.0f}" for kind, (right, count) in sorted(shares.items()))
            print(f"all:{100 * total:.1f} {table}", flush=True)
            learner.save()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m penstock.demos.brook.train", description=__doc__)
    parser.add_argument("--sight", type=Path)
    parser.add_argument("--hearing", type=Path)
    parser.add_argument("--resume", type=Path, help="a training.pt, or a folder with a checkpoint")
    parser.add_argument("--oracle", action="store_true", help="take what is seen from the scene, not from the tower")
    parser.add_argument("--towers", type=float, default=0.0, help="share of the rate for the towers; 0 freezes them")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rows", type=int, default=7000)
    parser.add_argument("--seconds", type=float, nargs=2, default=(3.0, 8.0))
    parser.add_argument("--hard", type=float, default=1.0, help="how much more often hard kinds are asked, 0 to 1")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--cooling", type=float, default=0.3, help="share of the steps in which the rate falls to 0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw the data")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--every", type=int, default=300)
    parser.add_argument("--trial", type=int, default=8, help="batches that are tried at every save")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(Learner(options))


if __name__ == "__main__":
    main()
