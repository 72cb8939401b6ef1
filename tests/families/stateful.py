"""Small models whose layers keep states of all rows, with random weights. In: a folder. Out: that folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import transformers as hf
from penstock.engine.span import Rows
from torch import nn

from tests.engine.tried import PATCH, _save
from tests.families.axes import EDGES, FRAMES, _marked
from tests.fixtures.parts import language_sizes

LINEAR = ["linear_attention", "full_attention"]
# The state is read by a row that stands behind hundreds: so it forgets slowly.
_DELTA: dict[str, Any] = {
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "layer_types": LINEAR, "head_dim": 16,
}  # fmt: skip
_EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
}  # fmt: skip


def _qwen3_5(folder: Path, config: Any, model: Any, seed: int = 3, **more: Any) -> Path:
    tokenizer, ids, marks = _marked("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    made = config(
        text_config={**language_sizes([2, 3, 3]), **marks, "num_hidden_layers": 2, **_DELTA, **more},
        vision_config={"depth": 2, "hidden_size": 48, "num_heads": 3, "intermediate_size": 96, "patch_size": PATCH,
                       "out_hidden_size": 64, "num_position_embeddings": 64},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(size=EDGES),
        tokenizer,
        hf.Qwen3VLVideoProcessor(patch_size=PATCH, size=FRAMES),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, model(made), tokenizer, processor, seed, settle=remembering)


def remembering(model: Any) -> None:
    """Its states forget slowly, as trained ones do: what was long ago is still in the logits."""
    for module in model.modules():
        if hasattr(module, "A_log"):
            nn.init.constant_(module.A_log, -3.0)
            nn.init.constant_(module.dt_bias, 0.0)


def plain(count: int) -> Rows:
    """So many rows of words."""
    return Rows(np.zeros(count, dtype=np.int64), np.broadcast_to(np.arange(count, dtype=np.int64), (3, count)))


def qwen3_5(folder: Path) -> Path:
    """Layers of a gated delta rule, with a convolution before it, between those that attend."""
    return _qwen3_5(folder, hf.Qwen3_5Config, hf.Qwen3_5ForConditionalGeneration)


def qwen3_5_moe(folder: Path) -> Path:
    return _qwen3_5(folder, hf.Qwen3_5MoeConfig, hf.Qwen3_5MoeForConditionalGeneration, 6, **_EXPERTS)
