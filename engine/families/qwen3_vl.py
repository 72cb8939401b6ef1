"""Qwen3-VL: images and video, as text out.

Each pair of frames stands alone after words for its time, `<0.2 seconds>`, so that positions never count seconds
(`Qwen3VLProcessor` and `get_rope_index` of transformers). What the tower gives for the decoder's first layers
(DeepStack, arXiv 2406.04334) travels beside the embeddings.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from ..family import Loaded
from ..span import Span
from .qwen_vl import load_vl
from .towers import PictureTowers


class TimedTowers(PictureTowers):
    """A vision tower whose pairs of frames come with their time."""

    bounds_frames = False
    tells_times = True

    def timed(self, span: Span) -> Span:
        assert span.start_us is not None and span.stop_us is not None
        seconds = (span.start_us / 1_000_000 + span.stop_us / 1_000_000) / 2
        tokenizer = self.processor.tokenizer
        words = tokenizer(f"<{seconds:.1f} seconds>", add_special_tokens=False)["input_ids"]
        start, end = self.processor.vision_start_token_id, self.processor.vision_end_token_id
        return msgspec.structs.replace(span, before=(*words, start), after=(end,))


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A Qwen3-VL from `path`, in `dtype` on `device`."""
    return load_vl(path, dtype, device, TimedTowers, clock="patches")
