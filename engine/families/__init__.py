"""Model families that Penstock serves, by `model_type` of their configuration.

Each module has `load(path, dtype, device) -> Loaded`. Families outside this folder register under the entry point group
`penstock.families` with the model type as the name and such a `load` as the object.

    qwen2.py            text-only Qwen2 and Qwen2.5
    qwen2_5_omni.py     the thinker of Qwen2.5-Omni: images, video, sound, sound inside video
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points

from ...codecs.errors import ModelError

BUILT_IN = {
    "qwen2": ".qwen2",
    "qwen2_5_omni": ".qwen2_5_omni",  # the whole checkpoint: only its thinker is loaded
    "qwen2_5_omni_thinker": ".qwen2_5_omni",
}


def loader(model_type: str) -> Callable:
    """The `load` of the family of this model type. Raises ModelError that lists what is served."""
    if model_type in BUILT_IN:
        return import_module(BUILT_IN[model_type], __name__).load
    found = entry_points(group="penstock.families", name=model_type)
    if found:
        return next(iter(found)).load()
    raise ModelError(f"model type {model_type!r} is not served; expected one of {', '.join(sorted(BUILT_IN))}")
