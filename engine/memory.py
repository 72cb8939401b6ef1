"""How the memory of a device is shared out: weights, the largest step, the encoder, and what is left for the KV cache.
In: a loaded checkpoint and the configuration. Out: a `Memory`, whose pages the cache takes; or ModelError.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..codecs.errors import ModelError
from ..streams.options import sized
from ..streams.segment import MediaSpec
from . import compute
from .attention import Backend
from .compute import amount
from .config import EngineConfig
from .family import Loaded
from .language import token_shape
from .worst import worst_case

# Of what is left. Beside other programs, and beside what the host keeps for streams, a CPU's share is smaller.
_FRACTIONS = {"cuda": 0.9}
_FRACTION = 0.5
# Off CUDA the cache takes no more than this on its own account: four streams of 8k tokens.
_MOST_TOKENS = 32_768
# With fewer a conversation of one picture and a few words does not fit.
_LEAST_TOKENS = 1024


class Memory(msgspec.Struct, frozen=True):
    """Bytes on one device, and the cache's pages. `step_bytes` and `encoder_bytes` come and go."""

    weight_bytes: int
    step_bytes: int
    encoder_bytes: int
    token_bytes: int
    page_tokens: int
    pages: int

    @property
    def tokens(self) -> int:
        return self.pages * self.page_tokens

    @property
    def kv_bytes(self) -> int:
        return self.tokens * self.token_bytes


def plan_memory(loaded: Loaded, config: EngineConfig, backend: Backend) -> Memory:
    """Share out the memory. ModelError where the KV cache that was asked for, or any, does not fit."""
    device = str(loaded.device)
    step, encoder = worst_case(loaded, config, backend)
    if device.startswith("cuda"):
        encoder += config.span_bytes + config.encoder_cache_bytes  # what is encoded stays on the device
    if config.cuda_graphs:
        step *= 2  # what is recorded keeps its own, at most as much
    page_tokens = config.page_tokens or backend.page_tokens
    heads, dim = token_shape(loaded.config)
    token = 2 * loaded.config.num_hidden_layers * heads * dim * loaded.dtype.itemsize
    free = compute.free_bytes(device)
    if config.kv_gib is not None:
        tokens = int(config.kv_gib * 2**30) // token
    else:
        tokens = config.kv_tokens or _fitting(free, step + encoder, token, device, config, loaded.family.spec)
    pages = tokens // page_tokens
    if pages < 1:
        raise ModelError(f"KV cache: expected at least {page_tokens} tokens, one page, got {tokens}; try more --kv-gib")
    if free is not None and pages * page_tokens * token > free:
        raise ModelError(
            f"needs {amount(pages * page_tokens * token)} for a KV cache of {tokens} tokens, {amount(free)} free on "
            f"{device} beside the weights; try less --kv-gib"
        )
    return Memory(weight_bytes(loaded), step, encoder, token, page_tokens, pages)


def host_pages(config: EngineConfig, memory: Memory, device: str) -> int:
    """How many pages may be moved to the host's memory: of what is free there, beside a cache that lies there too, at
    most half. What does not fit is fed anew later."""
    free = compute.free_bytes("cpu")
    if free is None:
        return config.host_pages
    room = free if device == "cuda" else free - memory.kv_bytes
    return min(config.host_pages, max(0, room // 2 // (memory.page_tokens * memory.token_bytes)))


def _fitting(free: int | None, worst: int, token: int, device: str, config: EngineConfig, spec: MediaSpec) -> int:
    """Tokens of KV cache in `memory_fraction` of what `free` bytes leave beside the worst case."""
    cuda, fraction = device.startswith("cuda"), config.memory_fraction
    if fraction is not None and not 0 < fraction <= 1:
        raise ModelError(f"memory_fraction: expected more than 0 and at most 1, got {fraction:g}")
    if free is None:
        return _MOST_TOKENS
    share = fraction or _FRACTIONS.get(device.partition(":")[0], _FRACTION)
    room = int(max(0, free - worst) * share)
    if room < _LEAST_TOKENS * token:
        raise ModelError(
            f"needs {amount(worst)} for a step and the encoder, and {amount(_LEAST_TOKENS * token)} for a KV cache of "
            f"{_LEAST_TOKENS} tokens in {share:.0%} of the rest, {amount(free)} free on {device} beside the weights; "
            f"try {_smaller_pictures(config, spec)}--quantize int8 or a smaller model"
        )
    return room // token if cuda or fraction else min(_MOST_TOKENS, room // token)


def _smaller_pictures(config: EngineConfig, spec: MediaSpec) -> str:
    """The bound on pixels to try where the model's processor has one: half of what holds."""
    rule = sized(spec, config.processor).image
    if rule is None or "max_pixels" not in spec.options or rule.max_pixels < 2 * rule.min_pixels:
        return ""
    return f"--processor max_pixels={rule.max_pixels // 2}, "


def weight_bytes(loaded: Loaded) -> int:
    """Bytes of all tensors of the decoder, the output layer and the towers; those that are shared count once."""
    whole: Any = getattr(loaded.towers, "model", None)  # families keep the whole model there; else its blocks are known
    modules = [loaded.text, loaded.head, *loaded.towers.blocks, *([whole] if whole is not None else [])]
    tensors = {
        tensor.data_ptr(): tensor.nbytes for module in modules for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(tensors.values())
