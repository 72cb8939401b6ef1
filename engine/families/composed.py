"""What a configuration puts together: LLaVA and its kin name any tower and any decoder of the library. In: a model
whose family knows how it lays rows. Out: the same; or ModelError, where this decoder computes otherwise over pages, or
this tower gives other rows than the family counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ModelError
from ...streams.segment import ImageSegment
from ..family import Loaded
from ..runner.probe import check_against_stock
from .parts import wanted
from .text import check_text
from .towers import ATTENTION

# Those that the families' own tests hold; any other is tried.
_DECODERS = ("gemma3_text", "llama", "qwen2")
_TOWERS = ("clip_vision_model", "siglip_vision_model", "smolvlm_vision")
_PICTURE = (48, 64, 3)


def check_composed(loaded: Loaded, model: Any) -> Loaded:
    """Try what the family's tests do not hold, as far as its weights are here."""
    config = model.config
    if config.text_config.model_type not in _DECODERS:
        check_text(config.text_config)
        if not loaded.head.weight.is_meta:
            loaded = loaded._replace(drawn=check_against_stock(loaded, model, ATTENTION))
    here = loaded.device.type != "meta" or wanted() == "towers"
    if config.vision_config.model_type not in _TOWERS and here and wanted() != "language":
        _check_tower(loaded)
    return loaded


def _check_tower(loaded: Loaded) -> None:
    picture = ImageSegment(1, 0, np.zeros(_PICTURE, dtype=np.uint8))
    expected = loaded.towers.rows(picture)
    [made] = loaded.towers.encode([(0, picture)])
    if len(made.embeds.rows) != expected:
        raise ModelError(f"its family counts {expected} rows of a picture, its tower gives {len(made.embeds.rows)}")
