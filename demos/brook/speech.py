"""The language model over whole streams, for training: the same weights as the stock forward, on a faster way.

In: embeddings `(b, n, hidden)` and positions `(3, b, n)`. Out: the hidden rows of `Qwen2_5OmniThinkerTextModel`
(tests/demos compares them). On a CPU most of a training step is spent beside the matrix products; here rotation, norms
and softmax are few and `torch.compile` can fuse them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-6  # of the norms
STRETCH = 128  # queries at a time in training's attention


def turns(language: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(b, 1, n, head)` of the three-axis rotary embedding."""
    config = language.config
    half = (config.hidden_size // config.num_attention_heads) // 2
    rope = config.rope_parameters
    speeds = 1.0 / (rope["rope_theta"] ** (torch.arange(half, dtype=torch.float) / half))
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor(rope["mrope_section"]))
    angles = positions[axis].permute(1, 2, 0).float() * speeds
    angles = torch.cat((angles, angles), -1)[:, None]
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    x = x.float()
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * weight).to(torch.bfloat16)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Causal attention of `(b, heads, n, head)`, a stretch of queries at a time; `mask` `(n, n)` is added to scores."""
    length = q.shape[2]
    mixed = []
    for start in range(0, length, STRETCH):
        stop = min(start + STRETCH, length)
        scores = q[:, :, start:stop] @ k[:, :, :stop].transpose(-1, -2) + mask[start:stop, :stop]
        mixed.append(torch.softmax(scores, -1) @ v[:, :, :stop])
    return torch.cat(mixed, 2)


def _before(
    x: Tensor, cos: Tensor, sin: Tensor, norm: Tensor, weights: list[Tensor], biases: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a layer, `(b, heads, n, head)` bf16."""
    normed = _normed(x, norm)
    count, length, _ = x.shape
    q, k, v = (
        functional.linear(normed, weight.to(torch.bfloat16), bias.to(torch.bfloat16))
        .view(count, length, -1, cos.shape[-1])
        .transpose(1, 2)
        for weight, bias in zip(weights, biases, strict=True)
    )
    q = (_rotated(q.float(), cos, sin) * cos.shape[-1] ** -0.5).to(torch.bfloat16)
    k = _rotated(k.float(), cos, sin).to(torch.bfloat16)
    times = q.shape[1] // k.shape[1]
    return q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)


def _behind(x: Tensor, mixed: Tensor, out: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The rest of a layer."""
    out, gate, up, down = (weight.to(torch.bfloat16) for weight in (out, gate, up, down))
    x = x + functional.linear(mixed.transpose(1, 2).flatten(2), out)
    normed = _normed(x, norm)
    inside = functional.silu(functional.linear(normed, gate)) * functional.linear(normed, up)
    return x + functional.linear(inside, down)


_fast = (torch.compile(_before, dynamic=True), torch.compile(_behind, dynamic=True))


def speak(language: Any, embeds: Tensor, positions: Tensor, fast: bool = True) -> Tensor:
    """Hidden rows behind the last norm, bf16."""
    length = embeds.shape[1]
    cos, sin = turns(language, positions)
    mask = torch.full((length, length), float("-inf")).triu(1).to(torch.bfloat16)
    before, behind = _fast if fast else (_before, _behind)
    x = embeds.float()
    for block in language.layers:
        own, mlp = block.self_attn, block.mlp
        inputs = (own.q_proj, own.k_proj, own.v_proj)
        weights, biases = [linear.weight for linear in inputs], [linear.bias for linear in inputs]
        mixed = attend(*before(x, cos, sin, block.input_layernorm.weight, weights, biases), mask)
        norm = block.post_attention_layernorm.weight
        x = behind(x, mixed, own.o_proj.weight, norm, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)
    return _normed(x, language.norm.weight)
