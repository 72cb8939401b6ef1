"""What the language model begins with: words that name a thing lie near to what the towers will say of it.

In: a fresh model and its tokenizer. Out: the same model, its words, matrices and output layer set. Attention then finds
"circle" in a picture from the first step on, where it would take thousands of steps to find out which of the tower's
signs is meant by which word. It does not know pictures or sound.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .world import COLOURS, NUMBERS, PITCHES, SHAPES, SIZES

SCALE = 0.3  # standard deviation of a word's embedding
_NAMED = (*SHAPES, *COLOURS, *SIZES, *NUMBERS, *PITCHES)
_FORMS = ("{}", " {}", "{}s", " {}s", "{}es", " {}es")


def concepts(hidden: int) -> dict[str, Tensor]:
    """A vector `(hidden,)` for each shape, colour, size, number and pitch; always the same ones."""
    dice = torch.Generator().manual_seed(7)
    return {word: torch.randn(hidden, generator=dice) * SCALE for word in _NAMED}


@torch.no_grad()
def begin(language: Any, head: Any, tokenizer: Any) -> None:
    """Set the weights of the language model and its head."""
    dice = torch.Generator().manual_seed(8)
    words = language.embed_tokens.weight
    words.normal_(0, SCALE, generator=dice)
    for name, concept in concepts(words.shape[1]).items():
        for form in _FORMS:
            ids = tokenizer.encode(form.format(name), add_special_tokens=False)
            if len(ids) == 1:
                words[ids[0]] = 0.8 * concept + 0.6 * words[ids[0]]
    head.weight.copy_(words / (SCALE * words.shape[1] ** 0.5))
    depth = (2 * len(language.layers)) ** -0.5
    for layer in language.layers:
        own, mlp = layer.self_attn, layer.mlp
        for linear in (own.q_proj, own.v_proj, mlp.gate_proj, mlp.up_proj):
            linear.weight.normal_(0, linear.in_features**-0.5, generator=dice)
        for linear in (own.o_proj, mlp.down_proj):
            linear.weight.normal_(0, depth * linear.in_features**-0.5, generator=dice)
        own.k_proj.weight.copy_(own.q_proj.weight)  # like is drawn to like
