"""What goes into Brook's towers and what they make of it, in batches: the training's way through the same weights.

In: pictures and sound tracks. Out: patches and log-mel as the model's processor makes them, and the towers' features,
equal to those of `get_video_features` and `get_audio_features` (tests/brook hold both). The stock towers loop over
clips in Python; here all clips of a batch have one shape, and go through at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

PATCH, MERGE = 14, 2
SIDE = 112  # pixels of a picture; 8 patches, 4 merged fields
FIELDS = SIDE // PATCH // MERGE
HOP, WINDOW, BINS = 320, 640, 64
BLOCK_FRAMES = 50  # log-mel frames in a block of one second
BLOCK_ROWS = 12  # features of a whole block
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def patches(pairs: Tensor) -> Tensor:
    """Frame pairs `(n, 2, h, w, 3)` uint8 to `(n, patches, 1176)`, in the order of Qwen2VLVideoProcessor."""
    count, _, height, width, _ = pairs.shape
    pixels = pairs.float().div_(255)
    pixels = (pixels - pixels.new_tensor(MEAN)) / pixels.new_tensor(STD)
    rows, columns = height // PATCH, width // PATCH
    grid = pixels.reshape(count, 2, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3)
    return grid.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(count, rows * columns, 3 * 2 * PATCH * PATCH)


def _turns(rows: int, columns: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(patches, width)` of the vision tower's axial rotary embedding, in the order of `patches`."""
    half = width // 2
    speeds = 1.0 / (10_000 ** (torch.arange(0, half, 2, dtype=torch.float) / half))
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1)
    places = places.reshape(rows // MERGE, MERGE, columns // MERGE, MERGE, 2).permute(0, 2, 1, 3, 4).reshape(-1, 2)
    angles = (places[:, :, None].float() * speeds).flatten(1)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, -1)
    cos, sin = (turn.to(x.dtype) for turn in turns)
    return x * cos + torch.cat((-second, first), -1) * sin


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Plain attention: over so few rows its backward pass is several times as fast as the fused one's on a CPU."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, -1, dtype=scores.dtype) @ v


def see(tower: Any, pairs: Tensor, rows: int, columns: int) -> Tensor:
    """Features `(n, rows / 2 * columns / 2, hidden)` of `patches`, by the vision tower's own weights."""
    count, length, _ = pairs.shape
    x = functional.linear(pairs, tower.patch_embed.proj.weight.flatten(1))
    heads = tower.blocks[0].attn.num_heads
    turns = _turns(rows, columns, x.shape[-1] // heads)
    for block in tower.blocks:
        normed = block.norm1(x)
        q, k, v = (
            linear(normed).view(count, length, heads, -1).transpose(1, 2)
            for linear in (block.attn.q, block.attn.k, block.attn.v)
        )
        mixed = _attend(_rotated(q, turns), _rotated(k, turns), v, None)
        x = x + block.attn.proj(mixed.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    return tower.merger(x).view(count, length // MERGE**2, -1)


def power(track: np.ndarray, banks: Tensor) -> Tensor:
    """Log10 mel power `(bins, frames)` of a whole track. `banks` `(WINDOW / 2 + 1, bins)` is the extractor's."""
    spectrum = torch.stft(
        torch.from_numpy(track), WINDOW, HOP, window=torch.hann_window(WINDOW), center=True, return_complex=True
    )
    return torch.clamp(banks.T @ spectrum.abs().square(), min=1e-10).log10()


def block_rows(frames: int) -> int:
    """Features of a block of so many frames."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def hear(tower: Any, mels: Tensor, frames: Tensor) -> Tensor:
    """Features `(n, BLOCK_ROWS, hidden)` of blocks `(n, bins, BLOCK_FRAMES)`, by the audio tower's own weights.

    Only the first `frames[i]` of block i count, and only its first `block_rows(frames[i])` features mean anything.
    """
    count = len(mels)
    inside = torch.arange(mels.shape[2]) < frames[:, None]
    x = functional.gelu(tower.conv1(mels * inside[:, None])) * inside[:, None]
    x = functional.gelu(tower.conv2(x)).transpose(1, 2)
    x = x + tower.positional_embedding.positional_embedding[: x.shape[1]].to(x.dtype)
    length = x.shape[1]
    mask = (torch.arange(length) < ((frames - 1) // 2 + 1)[:, None])[:, None, None, :]
    for layer in tower.layers:
        attention = layer.self_attn
        normed = layer.self_attn_layer_norm(x)
        q, k, v = (
            linear(normed).view(count, length, attention.num_heads, -1).transpose(1, 2)
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        mixed = _attend(q, k, v, mask)
        x = x + attention.out_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(x))))
    pooled = (x[:, 0 : length - 1 : 2] + x[:, 1::2]) / 2
    return tower.proj(tower.ln_post(pooled))
