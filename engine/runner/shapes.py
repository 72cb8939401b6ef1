"""What one row takes in the KV cache, layer by layer. In: the configuration of a decoder. Out: a `LayerShape` for each
of its layers. It reads no weights: the trial at load finds a layer that has other keys than its configuration says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from .narrow import width

# Kinds of layers, as the library names them: those that keep a state of all rows, alone or beside keys, and those that
# keep no keys.
WITH_STATES = ("linear_attention", "conv", "hybrid", "hybrid_sliding")
WITHOUT_KEYS = ("linear_attention", "conv", "moe", "mlp")
CHUNKED = "chunked_attention"  # rows see none before their chunk
KINDS = {"full_attention", "sliding_attention", CHUNKED, *WITH_STATES, *WITHOUT_KEYS}


class LayerShape(NamedTuple):
    """One layer: `heads` of keys and of values (0: it keeps none), how many numbers each key and each value has, and
    how many query heads share a key head. `owner`: the layer whose pages it reads, which is itself, or an earlier one
    that writes them for both."""

    heads: int
    key: int
    value: int
    group: int
    owner: int


def layer_shapes(config: Any) -> list[LayerShape]:
    """Of all layers, in order."""
    by_layer = getattr(config, "per_layer_config", None) or {}
    layers = range(config.num_hidden_layers)
    kinds = _kinds(config)
    shapes = [
        LayerShape(*_sizes(by_layer[layer] if by_layer else config), owner)
        for layer, owner in zip(layers, _owners(config), strict=True)
    ]
    return [
        shape._replace(heads=0) if kind in WITHOUT_KEYS else shape for kind, shape in zip(kinds, shapes, strict=True)
    ]


def stateful(config: Any) -> bool:
    """Whether layers of a decoder with this configuration keep states."""
    return any(kind in WITH_STATES for kind in _kinds(config))


def _kinds(config: Any) -> list[str]:
    return getattr(config, "layer_types", None) or [""] * config.num_hidden_layers


def row_bytes(shapes: Iterable[LayerShape], dtype: torch.dtype) -> int:
    """What one row takes in all layers; pages that layers share count once."""
    own = [shape for layer, shape in enumerate(shapes) if shape.owner == layer]
    return sum(shape.heads * (width(shape.key, dtype) + width(shape.value, dtype)) for shape in own) * dtype.itemsize


def _sizes(config: Any) -> tuple[int, int, int, int]:
    """Heads, numbers of a key and of a value, and query heads for each key head."""
    queries = config.num_attention_heads
    turned, plain = (getattr(config, f"qk_{part}_head_dim", None) for part in ("rope", "nope"))
    if turned and plain:  # keys and values are made of one latent for each query head (MLA, arXiv 2405.04434)
        return queries, plain + turned, config.v_head_dim, 1
    heads = getattr(config, "num_key_value_heads", None) or queries
    key = getattr(config, "head_dim", None) or config.hidden_size // queries
    return heads, key, getattr(config, "v_head_dim", None) or key, queries // heads


def _owners(config: Any) -> list[int]:
    """Of each layer, whose keys and values it reads. The last layers of some models read those of the last layer of
    their kind before them (arXiv 2405.12981)."""
    count = config.num_hidden_layers
    own = count - (getattr(config, "num_kv_shared_layers", None) or 0)
    kinds = _kinds(config)
    last = {kind: layer for layer, kind in enumerate(kinds[:own])}
    return [layer if layer < own else last[kinds[layer]] for layer in range(count)]
