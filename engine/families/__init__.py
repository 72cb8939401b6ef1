"""Model families that Penstock serves, by `model_type` of their configuration.

Each module has `load(path, dtype, device) -> Loaded`. Families outside this folder register under the entry point group
`penstock.families` with the model type as the name and such a `load` as the object.

    text.py             text-only decoders: Llama, Qwen2, Qwen3; others are tried
    tried.py            any other model that takes pictures
    one_axis.py         what models share whose rows stand on one axis of positions
    llava.py            LLaVA 1.5: images
    llava_onevision.py  LLaVA-OneVision: images, video
    gemma3.py           Gemma 3: images
    smolvlm.py          SmolVLM: images, video
    qwen_vl.py          Qwen2-VL, Qwen2.5-VL: images, video
    qwen3_vl.py         Qwen3-VL: images, video
    opened.py           a model with all of its weights
    qwen_pictures.py    what vision towers of the Qwen family share
    qwen2_5_omni.py     the thinker of Qwen2.5-Omni: images, video, sound, sound inside video
    qwen3_omni.py       the thinker of Qwen3-Omni: the same
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ...codecs.errors import ModelError
from ..library import transformers
from ..out_of_memory import is_out_of_memory
from ..rotary import check_rotary
from .opened import MissingWeights

BUILT_IN = {
    "gemma3": ".gemma3",
    "gemma3_text": ".text",
    "llama": ".text",
    "llava": ".llava",
    "llava_onevision": ".llava_onevision",
    "qwen2": ".text",
    "qwen2_5_omni": ".qwen2_5_omni",  # the whole checkpoint: only its thinker is loaded
    "qwen2_5_omni_thinker": ".qwen2_5_omni",
    "qwen2_5_vl": ".qwen_vl",
    "qwen2_vl": ".qwen_vl",
    "qwen3": ".text",
    "qwen3_omni_moe": ".qwen3_omni",  # the same
    "qwen3_omni_moe_thinker": ".qwen3_omni",
    "qwen3_vl": ".qwen3_vl",
    "smolvlm": ".smolvlm",
}


# New media would change what is cached already (streamability class F).
_CHANGING = ("molmo2", "paligemma")


def loader(model_type: str) -> Callable:
    """The `load` of the family of this model type; of one that is not known, a `load` that tries it as a model for
    pictures, or for text alone. ModelError with the reason and what is served, where it cannot be one; of `load`, where
    it turns out to be none."""
    if model_type in BUILT_IN:
        return import_module(BUILT_IN[model_type], __name__).load
    found = entry_points(group="penstock.families", name=model_type)
    if found:
        return next(iter(found)).load()
    if model_type in _CHANGING:
        raise _unserved(model_type, "new media would change the rows that are cached already (class F)")
    known = transformers.models.auto.modeling_auto
    if model_type in known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        module = ".tried"
    elif model_type in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        module = ".text"
    else:
        raise _unserved(model_type, "transformers has no model for it that takes pictures or text and says text")

    def tried(path: Path, *where: Any) -> Any:
        try:
            return import_module(module, __name__).load(path, *where)
        except (MissingWeights, ImportError, OSError, SafetensorError):
            raise
        except Exception as error:  # whatever code that was never tried raises
            if is_out_of_memory(error):
                raise
            raise _unserved(model_type, str(error) or type(error).__name__) from error

    return tried


def check_config(config: Any) -> None:
    """Raise ModelError for what no family may let through, before weights are read."""
    try:
        check_rotary(config)
    except ModelError as error:
        raise _unserved(config.model_type, error) from error


def served() -> str:
    """The model types that are named here, in words."""
    return f"served are {', '.join(sorted(BUILT_IN))}, and others that pass a trial"


def _unserved(model_type: str, why: object) -> ModelError:
    return ModelError(f"model type {model_type!r} is not served: {why}; {served()}")
