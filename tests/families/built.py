"""All families of the suite, by name, each with the classes that a load must measure."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.engine import tried as pictures

from . import axes, beside, blocks, documents, gemmas, hearing, later, llamas, mistral, refusals, stateful, tiled
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
_CLIPS = {"image": "A", "video": "E"}
_BOTH = {"image": "A", "video": "A"}
_WHOLE = {"image": "F"}

BUILDERS: dict[str, Built] = {
    "aria": Built(tiled.aria, _SEES),
    "aya_vision": Built(tiled.aya_vision, _SEES),
    "blip-2": Built(refusals.blip2, _WHOLE),
    "chameleon": Built(refusals.chameleon, _WHOLE),
    "cohere2_vision": Built(tiled.cohere2_vision, _SEES),
    "cohere_compass": Built(axes.cohere_compass, _BOTH),
    "deepseek_vl": Built(tiled.deepseek_vl, _SEES),
    "deepseek_vl_hybrid": Built(documents.deepseek_vl_hybrid, _SEES),
    "emu3": Built(refusals.emu3, _WHOLE),
    "ernie4_5_vl_moe": Built(axes.ernie4_5_vl_moe, _CLIPS),
    "exaone4_5": Built(axes.exaone4_5, _BOTH),
    "fast_vlm": Built(tiled.fast_vlm, _SEES),
    "fuyu": Built(refusals.fuyu, _WHOLE),
    "gemma3n": Built(gemmas.gemma3n, {"image": "A", "audio": "E"}),
    "gemma4": Built(gemmas.gemma4, {"image": "A", "video": "E", "audio": "E"}),
    "gemma4_unified": Built(gemmas.gemma4_unified, {"image": "D", "video": "E", "audio": "E"}),
    "gemma4 large": Built(gemmas.gemma4_large, {"image": "D", "video": "E"}),
    "glm46v": Built(axes.glm46v, _BOTH),
    "glm4v": Built(_glm("glm4v"), _BOTH),
    "glm4v_moe": Built(_glm("glm4v_moe"), _BOTH),
    "glm_ocr": Built(_glm("glm_ocr"), _BOTH),
    "got_ocr2": Built(documents.got_ocr2, _SEES),
    "granite4_vision": Built(documents.granite4_vision, _SEES),
    "granite_docling": Built(documents.granite_docling, _SEES),
    "hunyuan_vl": Built(axes.hunyuan_vl, _WHOLE),
    "idefics2": Built(pictures.idefics2, _SEES),
    "idefics3": Built(pictures.idefics3, _SEES),
    "instructblip": Built(refusals.instructblip, _WHOLE),
    "instructblipvideo": Built(beside.instructblipvideo, {"video": "F"}),
    "internvl": Built(tiled.internvl, _CLIPS),
    "janus": Built(tiled.janus, _SEES),
    "kimi_k25": Built(axes.kimi_k25, _SEES),
    "lighton_ocr": Built(tiled.lighton_ocr, _SEES),
    "llama4": Built(llamas.llama4, _SEES),
    "llava_next": Built(pictures.llava_next, _SEES),
    "llava_next_video": Built(tiled.llava_next_video, _BOTH),
    "minimax_m3_vl": Built(axes.minimax_m3_vl, _CLIPS),
    "mistral3": Built(pictures.mistral3, _SEES),
    "molmo2": Built(blocks.molmo2, _WHOLE),
    "ovis2": Built(tiled.ovis2, _SEES),
    "paddleocr_vl": Built(axes.paddleocr_vl, _SEES),
    "paligemma": Built(blocks.paligemma, _WHOLE),
    "paligemma 2": Built(blocks.paligemma2, _WHOLE),
    "perception_lm": Built(tiled.perception_lm, _BOTH),
    "qianfan_ocr": Built(documents.qianfan_ocr, _SEES),
    **{
        build.__name__: Built(build, classes)
        for build, classes in (
            (later.cosmos3_edge, _BOTH),
            (later.cosmos3_omni, _BOTH),
            (later.deepseek_ocr2, _SEES),
            (later.glmga, _BOTH),
            (later.hyperclovax_vision_v2, _BOTH),
            (later.muse_glimmer, _CLIPS),
            (later.muse_spark, {**_CLIPS, "audio": "E"}),
            (later.pp_chart2table, _SEES),
            (refusals.phi4_multimodal, {"image": "A", "audio": "E"}),
        )
    },
    "mistral4": Built(beside.mistral4, {}),
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
            mistral.voxtral,
        )
    },
    "qwen2_audio": Built(pictures.qwen2_audio, {"audio": "E"}),
    "lfm2_vl": Built(stateful.lfm2_vl, _SEES),
    "lfm3_vl": Built(stateful.lfm3_vl, _BOTH),
    "minicpm_ocr": Built(stateful.minicpm_ocr, _CLIPS),
    "minicpmv4_6": Built(stateful.minicpmv4_6, _CLIPS),
    "minicpmv4_7": Built(stateful.minicpmv4_7, {"image": "F", "video": "F"}),
    "minicpmv4_7 close": Built(stateful.minicpmv4_7_close, _BOTH),
    "nemo_speechlm": Built(stateful.nemo_speechlm, {"audio": "E"}),
    "nemotron_h_omni": Built(stateful.nemotron_h_omni, {"image": "A", "audio": "E"}),
    "qwen3_5": Built(stateful.qwen3_5, _BOTH),
    "qwen3_5_moe": Built(stateful.qwen3_5_moe, _BOTH),
    "step3p7": Built(documents.step3p7, _SEES),
    "video_llama_3": Built(axes.video_llama_3, _CLIPS),
    "video_llava": Built(pictures.video_llava, _BOTH),
    "vipllava": Built(tiled.vipllava, _SEES),
}

TYPES = [name for name in BUILDERS if " " not in name]  # the others are a second model of a type

# What they show is shown by another family of the suite too, or they take seconds. Of those whose layers keep states
# two are looked at in every run.
_SLOW = {
    *("blip-2", "chameleon", "cosmos3_edge", "cosmos3_omni", "deepseek_ocr2", "emu3", "fast_vlm", "glmga"),
    *("muse_glimmer", "muse_spark", "paligemma 2", "perception_lm", "phi4_multimodal", "gemma4_unified"),
    *("lfm3_vl", "minicpm_ocr", "minicpmv4_6", "minicpmv4_7", "minicpmv4_7 close", "nemotron_h_omni", "qwen3_5_moe"),
}


def names(whole: bool) -> list[Any]:
    """Those of which some media may come in a stream; or, where `whole`, in a request's own prompt alone."""
    found = [
        name for name, built in BUILDERS.items() if built.classes and (set(built.classes.values()) == {"F"}) is whole
    ]
    return [pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name for name in found]
