"""LLaVA 1.5: images, as text out (arXiv 2310.03744). An image is encoded whole, and its rows are causal: class A."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..family import Loaded
from .one_axis import OneAxisTowers, load_one_axis


class LlavaTowers(OneAxisTowers):
    """CLIP's tower and the projector."""

    def __init__(self, model: Any, processor: Any, blocks: Any) -> None:
        super().__init__(model, processor, blocks)
        size = processor.image_processor.crop_size
        rows = (size["height"] // processor.patch_size) * (size["width"] // processor.patch_size)
        dropped = processor.vision_feature_select_strategy == "default"
        self.image_rows = rows + processor.num_additional_image_tokens - dropped


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A LLaVA 1.5 from `path`, in `dtype` on `device`."""
    return load_one_axis(path, dtype, device, LlavaTowers, ("vision_tower", "language_model"))
