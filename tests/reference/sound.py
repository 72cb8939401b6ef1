"""Log-mel features of one run of sound, cut into encoder blocks. In: samples. Out: `(bins, frames)` for each block.

Each block sees the real samples on both sides of its edges. The start of a run is reflected, its end is followed by
zeros. The floor of a block is the largest log-mel value of all blocks so far, this one included, minus 8.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

MIN_FRAMES = 3  # fewer give no token
DYNAMIC_RANGE = 8.0  # decades under the maximum, as Whisper has it


def log_mel(samples: np.ndarray, extractor: Any) -> torch.Tensor:
    """Log10 mel energies, no floor yet: `(bins, ceil(n / hop))` float32."""
    frames = math.ceil(len(samples) / extractor.hop_length)
    half = extractor.n_fft // 2
    run = torch.zeros(frames * extractor.hop_length + extractor.n_fft)
    run[: len(samples)] = torch.from_numpy(np.array(samples, dtype=np.float32))
    run = torch.cat([run[1 : half + 1].flip(0), run])[: (frames - 1) * extractor.hop_length + extractor.n_fft]
    window = torch.hann_window(extractor.n_fft)
    spectrum = torch.stft(run, extractor.n_fft, extractor.hop_length, window=window, center=False, return_complex=True)
    energy = torch.from_numpy(extractor.mel_filters).to(torch.float32).T @ (spectrum.abs() ** 2).contiguous()
    return energy.clamp(min=1e-10).log10()


def run_blocks(samples: np.ndarray, extractor: Any, frames: int = 200) -> list[torch.Tensor]:
    """The log-mel blocks of a run, of so many frames (Qwen2.5-Omni's encoder sees 2 s), without floor; a last block
    that is too short for one token is left out."""
    if len(samples) == 0:
        return []
    blocks = log_mel(samples, extractor).split(frames, dim=1)
    return [block for block in blocks if block.shape[1] >= MIN_FRAMES]


class RunningFloor:
    """The largest log-mel value of a stream so far."""

    def __init__(self) -> None:
        self.maximum = -math.inf

    def features(self, block: torch.Tensor) -> torch.Tensor:
        """The block with its floor, scaled as Whisper scales it; the block counts for its own floor."""
        self.maximum = max(self.maximum, float(block.max()))
        return _scaled(block, self.maximum)


def clip_features(blocks: list[torch.Tensor]) -> list[torch.Tensor]:
    """The blocks of a complete clip: one floor for all of them, as the stock extractor has it."""
    if not blocks:
        return []
    maximum = max(float(block.max()) for block in blocks)
    return [_scaled(block, maximum) for block in blocks]


def _scaled(block: torch.Tensor, maximum: float) -> torch.Tensor:
    return (block.clamp(min=maximum - DYNAMIC_RANGE) + 4.0) / 4.0
