"""Qwen2-VL and Qwen2.5-VL: images and video, as text out.

Both lay a video as one open block of frame pairs. Time is the number of the pair in Qwen2-VL and counts seconds in
Qwen2.5-VL (`get_rope_index` of both in transformers; Qwen2-VL, arXiv 2409.12191, section 2.1; Qwen2.5-VL, arXiv
2502.13923, section 2.1.2).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...streams.segment import MediaSpec
from ..family import Family, FamilyData, Loaded
from ..words.template import learn
from .towers import PictureTowers, open_sight


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A Qwen2-VL or Qwen2.5-VL from `path`, in `dtype` on `device`."""
    return load_vl(path, dtype, device, PictureTowers)


def load_vl(
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    towers: Callable[[Any, Any], PictureTowers],
    clock: str | None = None,
) -> Loaded:
    """A model of this kind. The attention of its language model is replaced, that of the tower left alone.

    `towers` makes the towers from the model and its processor; `clock` is the family's where the configuration does not
    tell it.
    """
    processor, model = open_sight(path, dtype, device)
    config, tokenizer = model.config, processor.tokenizer
    tower = towers(model.model, processor)
    per_second = getattr(config.vision_config, "tokens_per_second", None)
    data = FamilyData(
        name=config.model_type,
        model=str(path),
        spec=MediaSpec(**tower.rules),
        **learn(processor, tokenizer, model.generation_config, tower.placeholders()),
        classes={"image": "A", "video": "A"},
        per_second=float(per_second or 0),
        axes=3,
        max_positions=config.text_config.max_position_embeddings,
        vocabulary=config.text_config.vocab_size,
        clock=clock or ("patches" if per_second is None else "interval"),
        library_rule="sides",
    )
    family = Family(data, tokenizer)
    decoder = model.model.language_model
    return Loaded(family, tower, decoder, model.lm_head, config.text_config)
