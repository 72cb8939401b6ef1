"""Model families that Penstock serves, by `model_type` of their configuration.

Each module has `load(path, dtype, device) -> Loaded`; on the device "meta" no weight is read (opened.py). Families
of other packages register such a `load` (outside.py; docs/add-a-family.md).

    outside.py          families of other packages
    text.py             text-only decoders: Llama, Qwen2, Qwen3; others are tried
    tried.py            any other model that takes pictures, video or sound
    trial.py            whether it does here what it does in the library
    tried_towers.py     its towers, by the library's own methods
    findings.py         what was found, for a process that has the other half of the model
    piece_sizes.py      how long the pieces are that its processor lays
    processor_options.py   which options its processor has
    alone.py            one piece of media as a processor lays it
    senses.py           which kinds of media it takes
    exact_frames.py     how many frames of a video a model sees, where that is so many and no more
    tekken.py           tokenizers and processors of mistral-common, in the library's own form
    far_words.py        words that its towers' projectors embed
    row_types.py        what decoders are told of rows beside them
    together.py         rows of a prompt that see rows behind them
    composed.py         decoders and towers that a configuration puts together
    one_axis.py         what models share whose rows stand on one axis of positions
    llava.py            LLaVA 1.5: images
    llava_onevision.py  LLaVA-OneVision: images, video
    gemma3.py           Gemma 3: images
    smolvlm.py          SmolVLM: images, video
    qwen_vl.py          Qwen2-VL, Qwen2.5-VL: images, video
    qwen3_vl.py         Qwen3-VL and its mixtures of experts: images, video
    across.py           whole prompts of models whose words read media by cross-attention
    mllama.py           Llama 3.2 Vision: images
    whisper.py          Whisper: sound
    opened.py           a model with all of its weights
    parts.py            or with those of its towers, or of its decoder, alone
    absent.py           towers that are elsewhere
    sizes.py            at which size a processor takes pictures and frames
    towers.py           towers that see, in pieces between decode steps: Qwen's, and the base of the others
    prompt.py           a whole prompt through the model's own processor
    ready_rows.py       where rows stand in it that were made elsewhere
    loudness.py         how loud the streams of towers that hear have been
    transcription.py    how families that hear are asked for the words of a sound
    qwen2_5_omni.py     the thinker of Qwen2.5-Omni: images, video, sound, sound inside video
    qwen3_omni.py       the thinker of Qwen3-Omni: the same
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ...errors import ModelError
from ..runner.library import transformers
from ..runner.out_of_memory import is_out_of_memory
from ..runner.rotary import check_rotary
from .opened import MissingWeights
from .outside import outside, registered

BUILT_IN = {
    "gemma3": ".gemma3",
    "gemma3_text": ".text",
    "llama": ".text",
    "llava": ".llava",
    "llava_onevision": ".llava_onevision",
    "mllama": ".mllama",
    "qwen2": ".text",
    "qwen2_5_omni": ".qwen2_5_omni",  # the whole checkpoint: only its thinker is loaded
    "qwen2_5_omni_thinker": ".qwen2_5_omni",
    "qwen2_5_vl": ".qwen_vl",
    "qwen2_vl": ".qwen_vl",
    "qwen3": ".text",
    "qwen3_omni_moe": ".qwen3_omni",  # the same
    "qwen3_omni_moe_thinker": ".qwen3_omni",
    "qwen3_vl": ".qwen3_vl",
    "qwen3_vl_moe": ".qwen3_vl",
    "smolvlm": ".smolvlm",
    "whisper": ".whisper",
}


# Errors of a checkpoint or a machine, not of a family: they are raised as they are.
_PLAIN = (MissingWeights, ImportError, OSError, SafetensorError)


def loader(model_type: str) -> Callable:
    """The `load` of the family of this model type. Where a family of this folder cannot load what others of its type
    can, and for a type that is not known, what it gives is tried as a model for media, or for text alone. ModelError
    with the reason and what is served, where it cannot be one; of `load`, where it turns out to be none."""
    if model_type in BUILT_IN:
        return partial(_native, model_type, import_module(BUILT_IN[model_type], __name__).load)
    if registered(model_type):
        return outside(model_type)
    trial = _trial(model_type)
    if trial is None:
        raise _unserved(model_type, "transformers has no model for it that takes media or text and says text")
    return partial(_tried, model_type, trial)


def is_tried(model_type: str) -> bool:
    """Whether nobody named this type: a trial at load decides if it is served."""
    return model_type not in BUILT_IN and not registered(model_type)


def rehearse(model_type: str, path: Path) -> None:
    """Raise ModelError where a model that is tried cannot pass by its classes and its small files alone, so that its
    weights need not be had first."""
    trial = _trial(model_type)
    assert trial is not None
    try:
        import_module(trial, __name__).load(path, torch.float32, torch.device("meta"))
    except ModelError as error:
        raise _unserved(model_type, _words(error)) from error
    except Exception:  # what stops it is an error when it is loaded
        return


def _native(model_type: str, load: Callable, *where: Any) -> Any:
    """The family's own way, then the one for models that nobody named."""
    try:
        return load(*where)
    except _PLAIN:
        raise
    except Exception as error:  # a checkpoint of this type that the family does not expect
        trial = None if is_out_of_memory(error) else _trial(model_type)
        if trial in (None, BUILT_IN[model_type]):
            raise
        try:
            return _tried(model_type, trial, *where)
        except _PLAIN:
            raise
        except ModelError as second:
            why = f"its family says: {_words(error)}; tried as any other: {_words(second.__cause__ or second)}"
            raise _unserved(model_type, why) from error


def _tried(model_type: str, module: str, *where: Any) -> Any:
    try:
        return import_module(module, __name__).load(*where)
    except _PLAIN:
        raise
    except Exception as error:  # whatever code that was never tried raises
        if is_out_of_memory(error):
            raise
        raise _unserved(model_type, _words(error)) from error


def _trial(model_type: str) -> str | None:
    """The module that tries models of this type; None where `transformers` has no class that could be."""
    if any(model_type in _known(kind) for kind in ("IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM")):
        return ".tried"
    if model_type in _known("CAUSAL_LM"):
        return ".text"
    return ".tried" if model_type in _known("SEQ_TO_SEQ_CAUSAL_LM") else None


def _known(kind: str) -> Any:
    return getattr(transformers.models.auto.modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES", {})


def _words(error: BaseException) -> str:
    """What an error says; the library's own with their type, since some say no more than a name."""
    said = " ".join(str(error).split())
    return said if isinstance(error, ModelError) and said else f"{type(error).__name__}: {said}"


def check_config(config: Any) -> None:
    """Raise ModelError for what no family may let through, before weights are read."""
    try:
        check_rotary(config)
    except ModelError as error:
        raise _unserved(config.model_type, error) from error
    others = [name for name in getattr(config, "sub_configs", {}) if re.search("vision|audio|image|speech", name)]
    only_text = is_tried(config.model_type) and _trial(config.model_type) == ".text"
    if only_text and any(getattr(config, name, None) is not None for name in others):
        named = ", ".join(sorted(others))
        raise _unserved(config.model_type, f"it would be served as text alone, without its {named}")
    if only_text and getattr(config, "is_encoder_decoder", False):
        raise _unserved(config.model_type, "its decoder reads the states of an encoder, which are no rows of a cache")


def served() -> str:
    """The model types that are named here, in words."""
    return f"served are {', '.join(sorted(BUILT_IN))}, and others that pass a trial"


def _unserved(model_type: str, why: object) -> ModelError:
    return ModelError(f"model type {model_type!r} is not served: {why}; {served()}")
