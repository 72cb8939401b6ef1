"""What names a loaded model: equal for the same weights, configuration and type of number. Knows torch only."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from .inner import inner

# So many values of each tensor, spread over it, stand for it.
_TAKEN = 64
# What a configuration says of the place that it was read from and of who reads it.
LEFT = ("_name_or_path", "transformers_version")


def fingerprint(text: torch.nn.Module, head: torch.nn.Module, config: Any) -> str:
    """Of a decoder with its output layer, and its configuration. An adapter or quantised layers are part of them."""
    said = {
        name: value for name, value in json.loads(config.to_json_string(use_diff=False)).items() if name not in LEFT
    }
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16)
    named = [
        (f"{place}.{name}", tensor)
        for place, module in (("text", text), ("head", head))
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    ]
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        for part in inner(tensor.detach()):
            digest.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
            values = part.reshape(-1)
            taken = values[:: max(1, len(values) // _TAKEN)].cpu().contiguous()
            digest.update(taken.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
