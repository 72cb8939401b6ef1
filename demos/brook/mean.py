"""The mean of checkpoints of one training: `python -m penstock.demos.brook.mean FOLDER FOLDER --out FOLDER`.

In: checkpoints, the folders `model` that train.py has written. Out: another, with the files of the first and the mean
of all weights.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def average(folders: list[Path], out: Path) -> None:
    """Write the mean, in the type of the weights."""
    shutil.copytree(folders[0], out, dirs_exist_ok=True)
    parts = [load_file(folder / WEIGHTS) for folder in folders]
    means = {
        name: torch.stack([part[name].float() for part in parts]).mean(0).to(tensor.dtype)
        for name, tensor in parts[0].items()
    }
    with safe_open(folders[0] / WEIGHTS, "pt") as first:
        save_file(means, out / WEIGHTS, first.metadata())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m penstock.demos.brook.mean", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    average(options.folders, options.out)


if __name__ == "__main__":
    main()
