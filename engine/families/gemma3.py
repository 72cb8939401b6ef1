"""Gemma 3: images, as text out (arXiv 2503.19786).

The rows of an image see one another, so an image goes in whole: class D. Most layers see a window of the rows before
them. A system prompt stands in the first user turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from ...errors import ModelError
from ...streams.segment import MediaSpec, Option
from ..family import Loaded
from .one_axis import AS_IT_CAME, OneAxisTowers, load_one_axis

# "Pan and scan", for whole prompts.
_CROPS = {
    "do_pan_and_scan": Option("switch"),
    "pan_and_scan_min_crop_size": Option("whole", 1, 1 << 14),
    "pan_and_scan_max_num_crops": Option("whole", 1, 64),
    "pan_and_scan_min_ratio_to_activate": Option("number", 1, 200),
}


class GemmaTowers(OneAxisTowers):
    """SigLIP's tower and the pooling projector. Pictures of a stream are never cut into crops."""

    classes: ClassVar[dict[str, str]] = {"image": "D"}

    def __init__(self, model: Any, processor: Any, blocks: Any) -> None:
        super().__init__(model, processor, blocks)
        self.image_rows = processor.image_seq_length

    def spec(self) -> MediaSpec:
        return MediaSpec(image=AS_IT_CAME, options=_CROPS)

    def own_blocks(self) -> dict[str, tuple[str, str]]:
        """What stands around the rows in the processor's own sequence for an image."""
        before, *_, after = self.processor.full_image_sequence.split(self.processor.tokenizer.image_token)
        return {"image": (before, after)}


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A Gemma 3 from `path`, in `dtype` on `device`."""
    loaded = load_one_axis(path, dtype, device, GemmaTowers, ("vision_tower", "language_model"))
    if (cap := loaded.config.final_logit_softcapping) is not None:
        raise ModelError(f"expected plain logits, got logits capped at {cap}: not served yet")
    return loaded
