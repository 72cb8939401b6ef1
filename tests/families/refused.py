"""Families that a load refuses, each with the words in which it says why."""

from __future__ import annotations

from typing import NamedTuple

from . import axes, documents, tiled
from .suite import Builder


class Refusal(NamedTuple):
    """`build(folder)` makes a small checkpoint of the real architecture there, or as much of one as the load reads."""

    build: Builder
    reason: str
    without: str | None = None  # refused only where this package is not installed


REFUSED: dict[str, Refusal] = {
    "ernie4_5_vl_moe": Refusal(axes.ernie4_5_vl_moe, "its decoder takes moe_mm_token_type_ids beside the rows"),
    "fast_vlm": Refusal(tiled.fast_vlm, "timm", without="timm"),
    "granite4_vision": Refusal(documents.granite4_vision, "expected pooler_output of its get_image_features, got none"),
    "hunyuan_vl": Refusal(axes.hunyuan_vl, "its rule gives a picture in a prompt other positions"),
    "kimi_k25": Refusal(axes.kimi_k25, "its decoder does not run over pages"),
    "perception_lm": Refusal(tiled.perception_lm, "timm", without="timm"),
}
