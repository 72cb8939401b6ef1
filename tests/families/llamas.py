"""A small Llama 4 with random weights. In: a folder. Out: that one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import CHAT, _save
from tests.fixtures.parts import ROPE_THETA, language_sizes

from .hearing import tokenizer_of

_SIDE, _PATCH = 56, 14


def llama4(folder: Path) -> Path:
    """Tiles with marks between them. The first layer sees the rows of a chunk; the second sees all, has no positions,
    and scales its scores by how many rows there are."""
    marks = ("<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>")
    tokenizer, ids, ends = tokenizer_of("<|image|>", *marks)
    tokenizer.chat_template = CHAT.replace("<image>", "<|image|>")
    sizes: dict[str, Any] = language_sizes() | {
        "num_hidden_layers": 2, "no_rope_layers": [1, 0], "attention_chunk_size": 24, "floor_scale": 16,
        "attn_scale": 0.5, "head_dim": 16, "intermediate_size_mlp": 96, "num_local_experts": 2, "bos_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
    }  # fmt: skip
    config = hf.Llama4Config(
        text_config={**sizes, **ends},
        vision_config={"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192,
                       "image_size": _SIDE, "patch_size": _PATCH, "vision_output_dim": 48, "projector_input_dim": 48,
                       "projector_output_dim": 48},
        image_token_index=ids["<|patch|>"], boi_token_index=ids["<|image_start|>"],
        eoi_token_index=ids["<|image_end|>"],
    )  # fmt: skip
    processor = hf.Llama4Processor(
        hf.Llama4ImageProcessor(size={"height": _SIDE, "width": _SIDE}, max_patches=4),
        tokenizer,
        patch_size=_PATCH,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Llama4ForConditionalGeneration(config), tokenizer, processor, seed=5)
