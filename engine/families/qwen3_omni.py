"""The thinker of Qwen3-Omni: images, video, sound, and sound inside video, as text out (arXiv 2509.17765).

Pictures come with what is added after the decoder's first layers (DeepStack), and there are 13 positions a second, so
that a pair of frames has to take a whole number of them. A block of sound is a second, what the tower's convolutions
see at once; its attention sees up to 8 s of a whole clip and one block in a stream (it was trained with both).
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..family import Loaded
from ..runner.library import transformers
from .qwen2_5_omni import OmniTowers, load_omni

_SECOND_US = 1_000_000


class Omni3Towers(OmniTowers):
    """The vision tower with its deeper features, and the tower for sound."""

    def sound_rows(self, frames: int) -> int:
        """Rows of a block of so many mel frames: three convolutions of stride 2."""
        for _ in range(3):
            frames = (frames - 1) // 2 + 1
        return frames

    def encode_blocks(self, mels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Blocks of one length in one pass: the convolutions of a shorter one would see the padding after it."""
        rows: dict[int, torch.Tensor] = {}
        for frames in {mel.shape[1] for mel in mels}:
            places = [place for place, mel in enumerate(mels) if mel.shape[1] == frames]
            encoded = super().encode_blocks([mels[place] for place in places])
            rows |= dict(zip(places, encoded, strict=True))
        return [rows[place] for place in range(len(mels))]


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """The thinker of a Qwen3-Omni from `path`, in `dtype` on `device`."""
    classes = (
        transformers.Qwen3OmniMoeProcessor,
        transformers.Qwen3OmniMoeThinkerForConditionalGeneration,
        Omni3Towers,
    )
    return load_omni(path, (dtype, device), classes, lambda config: _SECOND_US, clock="whole", unit_marks_share=False)
