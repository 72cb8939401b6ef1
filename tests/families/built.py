"""All families of the suite, by name, each with the classes that a load must measure."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.engine import tried as pictures

from . import hearing
from .suite import Builder


class Built(NamedTuple):
    """`build(folder)` makes a small checkpoint of the real architecture there."""

    build: Builder
    classes: dict[str, str]


def _glm(model_type: str) -> Builder:
    return partial(_several_axes, model_type=model_type)


def _several_axes(folder: Path, model_type: str) -> Path:
    return pictures.several_axes(folder, model_type)


BUILDERS: dict[str, Built] = {
    **{
        build.__name__: Built(build, {"audio": "E"})
        for build in (
            hearing.audioflamingo3,
            hearing.fun_asr_nano,
            hearing.glmasr,
            hearing.granite_speech,
            hearing.granite_speech_plus,
            hearing.moss_transcribe_diarize,
            hearing.musicflamingo,
            hearing.qwen3_asr,
        )
    },
    "glm4v": Built(_glm("glm4v"), {"image": "A", "video": "A"}),
    "glm4v_moe": Built(_glm("glm4v_moe"), {"image": "A", "video": "A"}),
    "glm_ocr": Built(_glm("glm_ocr"), {"image": "A", "video": "A"}),
    "qwen2_audio": Built(pictures.qwen2_audio, {"audio": "E"}),
    "video_llava": Built(pictures.video_llava, {"image": "A", "video": "A"}),
}
