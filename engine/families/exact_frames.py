"""Whether a model sees so many frames of a video and no more. In: its towers, and as many frames as they take. Out:
that number, or None. Some models leave the frames behind it out, and say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ...streams.requests.prompt import Content, Media
from ..runner.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from .tried_towers import TriedTowers

_SAME = 0.005  # of the largest number


def exact_frames(towers: TriedTowers, frames: np.ndarray) -> int | None:
    """How many frames a prompt's video must have; None where what stands behind these `frames` is seen too, or where
    the model says itself that it takes no more."""
    first, other = (_shown(towers, np.concatenate([frames, behind])) for behind in (frames, frames[::-1]))
    if first is None or other is None or first.shape != other.shape:
        return None
    return len(frames) if (first - other).abs().max() <= _SAME * first.abs().max() else None


def _shown(towers: TriedTowers, clip: np.ndarray) -> torch.Tensor | None:
    """The rows of a clip in a prompt; None where it is refused."""
    messages = [{"role": "user", "content": [{"type": "video", "video": "x"}, {"type": "text", "text": "Well?"}]}]
    try:
        prompt = towers.prompt(Content([Media("video", clip)], messages=messages, video_fps=towers.video_fps))
    except Exception as error:  # whatever a class raises
        if is_out_of_memory(error):
            raise
        return None
    return torch.cat([part.rows for part in prompt.embeds if part is not None])
