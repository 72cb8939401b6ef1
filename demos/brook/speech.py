"""The language model over whole streams, for training: the same weights as the stock forward, on a faster way.

In: embeddings `(b, n, hidden)`, positions `(3, b, n)` and which rows see which. Out: the hidden rows of
`Qwen2_5OmniThinkerTextModel` (tests/brook compares them). On a CPU most of a training step is spent beside the matrix
products; here a norm's weights go into the matrix after it, and what remains is few and `torch.compile` can fuse it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-6  # of the norms
STRETCH = 128  # queries at a time in training's attention


def turns(language: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(b, n, 1, head / 2)` of the three-axis rotary embedding."""
    config = language.config
    half = (config.hidden_size // config.num_attention_heads) // 2
    rope = config.rope_parameters
    speeds = 1.0 / (rope["rope_theta"] ** (torch.arange(half, dtype=torch.float) / half))
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor(rope["mrope_section"]))
    angles = positions[axis].permute(1, 2, 0).float() * speeds
    return angles.cos()[:, :, None], angles.sin()[:, :, None]


def visible(branches: Tensor) -> Tensor:
    """What is added to scores, `(b, 1, n, n)` bf16: each row sees the rows before it that are of the trunk (branch 0)
    or of its own branch."""
    length = branches.shape[1]
    seen = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    seen &= torch.ones(length, length, dtype=torch.bool).tril()
    return torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill_(~seen, float("-inf"))[:, None]


def _normed(x: Tensor) -> Tensor:
    """RMS norm without its weights, fp32 to bf16."""
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)).to(torch.bfloat16)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `(b, n, heads, head)`."""
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(torch.bfloat16)


def _gated(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, -1)
    return functional.silu(gate) * up


class Attention(torch.autograd.Function):
    """Attention of `(b, heads, n, head)` under an added mask, a stretch of queries at a time."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        mixed, shares = torch.empty_like(q), []
        for start, stop in _stretches(q):
            scores = q[:, :, start:stop] @ k[:, :, :stop].transpose(-1, -2)
            shares.append(torch.softmax(scores.add_(mask[:, :, start:stop, :stop]), -1, dtype=q.dtype))
            mixed[:, :, start:stop] = shares[-1] @ v[:, :, :stop]
        ctx.save_for_backward(q, k, v, *shares)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *shares = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for share, (start, stop) in zip(shares, _stretches(q), strict=True):
            wanted = gradient[:, :, start:stop]
            steep = torch.ops.aten._softmax_backward_data(
                wanted @ v[:, :, :stop].transpose(-1, -2), share, -1, share.dtype
            )
            dq[:, :, start:stop] = steep @ k[:, :, :stop]
            dk[:, :, :stop] += steep.transpose(-1, -2) @ q[:, :, start:stop]
            dv[:, :, :stop] += share.transpose(-1, -2) @ wanted
        return dq, dk, dv, None


def _stretches(q: Tensor) -> list[tuple[int, int]]:
    length = q.shape[2]
    return [(start, min(start + STRETCH, length)) for start in range(0, length, STRETCH)]


_fast = (
    torch.compile(_normed, dynamic=True),
    torch.compile(_turned, dynamic=True),
    torch.compile(_gated, dynamic=True),
)


def speak(
    language: Any, embeds: Tensor, positions: Tensor, mask: Tensor, taps: tuple[int, ...] = (), fast: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """Hidden rows after the last norm, bf16, and the normed ones above so many layers as `taps` say. `mask` as
    `visible` makes it."""
    normed, turned, gated = _fast if fast else (_normed, _turned, _gated)
    cos, sin = turns(language, positions)
    count, length, _ = embeds.shape
    width = 2 * cos.shape[-1]
    x = embeds.float()
    tapped = []
    for number, block in enumerate(language.layers, 1):
        own, mlp = block.self_attn, block.mlp
        weight = torch.cat([own.q_proj.weight * width**-0.5, own.k_proj.weight, own.v_proj.weight])
        bias = torch.cat([own.q_proj.bias * width**-0.5, own.k_proj.bias, own.v_proj.bias])
        mixing = _linear(normed(x), weight * block.input_layernorm.weight, bias).view(count, length, -1, width)
        heads, keys = (linear.out_features // width for linear in (own.q_proj, own.k_proj))
        moved = turned(mixing[:, :, : heads + keys], cos, sin)
        q, k = moved[:, :, :heads].transpose(1, 2), moved[:, :, heads:].transpose(1, 2)
        v = mixing[:, :, heads + keys :].transpose(1, 2)
        k, v = (part if keys == heads else part.repeat_interleave(heads // keys, 1) for part in (k, v))
        mixed = Attention.apply(q.contiguous(), k.contiguous(), v.contiguous(), mask)
        x = x + _linear(mixed.transpose(1, 2).flatten(2), own.o_proj.weight)
        weight = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * block.post_attention_layernorm.weight
        x = x + _linear(gated(_linear(normed(x), weight)), mlp.down_proj.weight)
        if number in taps:
            tapped.append(normed(x))
    return normed(x) * language.norm.weight.to(torch.bfloat16), tapped


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.linear(x, weight.to(torch.bfloat16), None if bias is None else bias.to(torch.bfloat16))
