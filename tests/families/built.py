"""All families of the suite, by name, each with the classes that a load must measure."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.engine import tried as pictures

from .suite import Builder


class Built(NamedTuple):
    """`build(folder)` makes a small checkpoint of the real architecture there."""

    build: Builder
    classes: dict[str, str]


def _glm(model_type: str) -> Builder:
    return partial(_several_axes, model_type=model_type)


def _several_axes(folder: Path, model_type: str) -> Path:
    return pictures.several_axes(folder, model_type)


_SEES = {"image": "A"}

BUILDERS: dict[str, Built] = {
    "glm4v": Built(_glm("glm4v"), {"image": "A", "video": "A"}),
    "glm4v_moe": Built(_glm("glm4v_moe"), {"image": "A", "video": "A"}),
    "glm_ocr": Built(_glm("glm_ocr"), {"image": "A", "video": "A"}),
    "idefics2": Built(pictures.idefics2, _SEES),
    "idefics3": Built(pictures.idefics3, _SEES),
    "llava_next": Built(pictures.llava_next, _SEES),
    "mistral3": Built(pictures.mistral3, _SEES),
    "qwen2_audio": Built(pictures.qwen2_audio, {"audio": "E"}),
    "video_llava": Built(pictures.video_llava, {"image": "A", "video": "A"}),
}
