"""Small models whose rows see rows behind them in a prompt, with random weights. In: a folder. Out: that folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import CHAT, SIDE, _save, _tokenizer
from tests.families.tiled import ROWS, SQUARE, _named, from_one
from tests.fixtures.one_axis import SIGHT
from tests.fixtures.parts import language_sizes


def paligemma(folder: Path, text: dict[str, Any] | None = None) -> Path:
    """All rows of a prompt see one another, words too; its processor sets marks of its own into the text."""
    tokenizer, ids, marks = _tokenizer("<image>")
    _named(tokenizer, image_token="<image>")
    tokenizer.bos_token = "<|endoftext|>"
    config = hf.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **SIGHT, "vision_use_head": False},
        text_config={"model_type": "gemma", **language_sizes(), **marks, "head_dim": 16, **(text or {})},
        image_token_index=ids["<image>"], projection_dim=64, hidden_size=64, vocab_size=1152,
    )  # fmt: skip
    images: Any = hf.SiglipImageProcessor(size=SQUARE)
    images.image_seq_length = ROWS
    processor = hf.PaliGemmaProcessor(images, tokenizer, chat_template=CHAT)
    return _save(folder, hf.PaliGemmaForConditionalGeneration(config), tokenizer, processor, settle=from_one)


def paligemma2(folder: Path) -> Path:
    """Gemma 2 behind it: its scores and logits are capped, and every second layer sees a window."""
    caps = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 30.0}
    return paligemma(folder, {"model_type": "gemma2", "sliding_window": 48, "query_pre_attn_scalar": 16, **caps})


def molmo2(folder: Path) -> Path:
    """All rows of media see one another, those of several pictures too; what a tower makes is added to placeholders."""
    own = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<im_low>", "<frame_start>",
           "<frame_end>")  # fmt: skip
    tokenizer, ids, marks = _tokenizer("<|image|>", "<|video|>", *own)
    tokenizer.chat_template = CHAT.replace("<image>", "<|image|>").replace("<video>", "<|video|>")
    sight = {**SIGHT, "num_key_value_heads": 3, "head_dim": 16, "image_size": [SIDE, SIDE], "num_hidden_layers": 2}
    config = hf.Molmo2Config(
        vision_config=sight,
        adapter_config={"vision_feature_layer": [-1, -2], "hidden_size": 48, "num_attention_heads": 3,
                        "num_key_value_heads": 3, "head_dim": 16, "intermediate_size": 64, "text_hidden_size": 64},
        text_config={**language_sizes(), **marks, "head_dim": 16, "additional_vocab_size": 0},
        image_start_token_id=ids["<im_start>"], image_end_token_id=ids["<im_end>"], image_patch_id=ids["<im_patch>"],
        low_res_image_start_token_id=ids["<low_res_im_start>"], frame_start_token_id=ids["<frame_start>"],
        frame_end_token_id=ids["<frame_end>"],
    )  # fmt: skip
    sizes: dict[str, Any] = {"size": SQUARE, "max_crops": 2, "overlap_margins": [1, 1]}
    processor = hf.Molmo2Processor(
        hf.Molmo2ImageProcessor(**sizes),
        hf.Molmo2VideoProcessor(size=SQUARE),
        tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Molmo2ForConditionalGeneration(config), tokenizer, processor, seed=5)
