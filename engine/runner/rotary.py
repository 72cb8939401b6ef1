"""Whether the rotary positions of a decoder are the same whoever else is in a step. In: the configuration of a model of
`transformers`. Out: nothing, or ModelError. The only check of it, for every family.
"""

from __future__ import annotations

from typing import Any

from ...errors import ModelError


def decoder_config(config: Any) -> Any:
    """The configuration of the decoder that is served: of a whole Omni its thinker's."""
    return getattr(config, "thinker_config", config).get_text_config(decoder=True)


def check_rotary(config: Any) -> None:
    """Raise ModelError where positions are scaled by length: the library turns all rows of a pass by the longest of its
    streams, so a stream's rows would hang on who else is there."""
    decoder = decoder_config(config)
    longest = getattr(decoder, "max_position_embeddings", 0)
    rules = getattr(decoder, "rope_parameters", None) or {}
    for rule in (rules, *(rule for rule in rules.values() if isinstance(rule, dict))):
        kind = rule.get("rope_type") or ""
        learnt = rule.get("original_max_position_embeddings") or getattr(decoder, "original_max_position_embeddings", 0)
        if "dynamic" in kind or (kind == "longrope" and longest > learnt):
            raise ModelError(f"expected rotary positions that do not change with a stream's length, got {kind!r}")
