"""Small models whose pictures are as many rows as they have patches, and stand on three axes of positions or on one,
with random weights: a tower of Qwen2-VL's kind. In: a folder. Out: that folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import CHAT, PATCH, SIDE, _save, _tokenizer
from tests.families.tiled import SQUARE, _named, from_one
from tests.fixtures.parts import language_sizes

EDGES = {"shortest_edge": PATCH * PATCH * 4, "longest_edge": SIDE * SIDE * 4}
FRAMES = {**EDGES, "longest_edge": 32 * EDGES["longest_edge"]}


def _marked(picture: str, film: str, *marks: str) -> tuple[Any, dict[str, int], dict[str, Any]]:
    """Tokenizer, ids and end tokens; in the template `marks` stand around pictures and films."""
    tokenizer, ids, ends = _tokenizer(picture, film, *marks)
    first, last = marks[:2] if marks else ("", "")
    shown = CHAT.replace("<image>", first + picture + last)
    first, last = marks[2:] if marks[2:] else (first, last)
    tokenizer.chat_template = shown.replace("<video>", first + film + last)
    return tokenizer, ids, ends


def glm46v(folder: Path) -> Path:
    """As GLM-4V, with the time of each frame in words behind it."""
    tokenizer, ids, marks = _marked("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>",
                                    "<|begin_of_video|>", "<|end_of_video|>")  # fmt: skip
    config = hf.Glm46VConfig(
        text_config={**language_sizes([2, 3, 3]), **marks},
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "image_size": SIDE,
                       "patch_size": PATCH, "out_hidden_size": 64},
        image_token_id=ids["<|image|>"], video_token_id=ids["<|video|>"],
        image_start_token_id=ids["<|begin_of_image|>"], image_end_token_id=ids["<|end_of_image|>"],
        video_start_token_id=ids["<|begin_of_video|>"], video_end_token_id=ids["<|end_of_video|>"],
    )  # fmt: skip
    processor = hf.Glm46VProcessor(
        hf.Glm46VImageProcessor(size=EDGES),
        tokenizer,
        hf.Glm46VVideoProcessor(size=FRAMES),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Glm46VForConditionalGeneration(config), tokenizer, processor)


def exaone4_5(folder: Path) -> Path:
    """Qwen2.5-VL's tower, which looks in windows in some layers, before a decoder of one axis with layers without
    positions."""
    tokenizer, ids, marks = _marked("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = hf.Exaone4_5_Config(
        text_config={"model_type": "exaone4", **language_sizes(), **marks, "sliding_window": 24, "layer_types": kinds,
                     "sliding_window_pattern": 3},
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "num_key_value_heads": 1,
                       "intermediate_size": 48, "patch_size": PATCH, "out_hidden_size": 64, "window_size": 2 * PATCH,
                       "fullatt_block_indexes": [1]},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
    )  # fmt: skip
    processor = hf.Exaone4_5_Processor(
        hf.Qwen2VLImageProcessor(size=EDGES),
        tokenizer,
        hf.Qwen2VLVideoProcessor(size=FRAMES),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Exaone4_5_ForConditionalGeneration(config), tokenizer, processor)


def video_llama_3(folder: Path) -> Path:
    """The time of each frame in words before it; patches that did not change since the frame before are left out."""
    tokenizer, ids, marks = _marked("<|image_pad|>", "<|video_pad|>")
    config = hf.VideoLlama3Config(
        text_config={"model_type": "qwen2", **language_sizes(), **marks},
        vision_config={"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48,
                       "patch_size": PATCH},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
    )  # fmt: skip
    processor = hf.VideoLlama3Processor(
        hf.VideoLlama3ImageProcessor(size=EDGES),
        tokenizer,
        hf.VideoLlama3VideoProcessor(size=FRAMES),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.VideoLlama3ForConditionalGeneration(config), tokenizer, processor)


def paddleocr_vl(folder: Path) -> Path:
    """A tower whose positions are interpolated to the picture, on three axes; no video in its processor."""
    own = ("<|IMAGE_START|>", "<|IMAGE_END|>")
    tokenizer, ids, marks = _marked("<|IMAGE_PLACEHOLDER|>", "<|VIDEO_PLACEHOLDER|>", *own)
    _named(tokenizer, image_token="<|IMAGE_PLACEHOLDER|>")
    config = hf.PaddleOCRVLConfig(
        text_config={**language_sizes([2, 3, 3]), **marks, "head_dim": 16},
        vision_config={"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48,
                       "patch_size": PATCH, "image_size": SIDE},
        image_token_id=ids["<|IMAGE_PLACEHOLDER|>"], video_token_id=ids["<|VIDEO_PLACEHOLDER|>"],
        vision_start_token_id=ids[own[0]], vision_end_token_id=ids[own[1]],
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.PaddleOCRVLProcessor(
        hf.PaddleOCRVLImageProcessor(size=EDGES), tokenizer, chat_template=tokenizer.chat_template
    )
    return _save(folder, hf.PaddleOCRVLForConditionalGeneration(config), tokenizer, processor)


def ernie4_5_vl_moe(folder: Path) -> Path:
    """Experts by kind of row, which the decoder is told beside the rows."""
    own = ("<|IMAGE_START|>", "<|IMAGE_END|>", "<|VIDEO_START|>", "<|VIDEO_END|>")
    tokenizer, ids, marks = _marked("<|IMAGE_PLACEHOLDER|>", "<|VIDEO_PLACEHOLDER|>", *own)
    _named(tokenizer, image_token="<|IMAGE_PLACEHOLDER|>", image_start_token=own[0], image_end_token=own[1],
           video_token="<|VIDEO_PLACEHOLDER|>", video_start_token=own[2], video_end_token=own[3])  # fmt: skip
    config = hf.Ernie4_5_VLMoeConfig(
        text_config={**language_sizes([3, 3, 2]), **marks, "moe_num_experts": 4, "moe_k": 2,
                     "moe_intermediate_size": [32, 16], "moe_num_shared_experts": 1},
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "patch_size": PATCH},
        image_token_id=ids["<|IMAGE_PLACEHOLDER|>"], video_token_id=ids["<|VIDEO_PLACEHOLDER|>"],
        image_start_token_id=ids[own[0]], image_end_token_id=ids[own[1]],
        video_start_token_id=ids[own[2]], video_end_token_id=ids[own[3]],
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.Ernie4_5_VLMoeProcessor(
        hf.Ernie4_5_VLMoeImageProcessor(size=EDGES),
        tokenizer,
        hf.Ernie4_5_VLMoeVideoProcessor(size=FRAMES, draw_on_frames=False),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Ernie4_5_VLMoeForConditionalGeneration(config), tokenizer, processor)


def hunyuan_vl(folder: Path) -> Path:
    """The picture's number among the pictures is an axis of positions of its own, so that a picture stands otherwise
    alone than after others; a mark at the end of each line of it is learnt."""
    own = ("<img_start>", "<img_end>")
    tokenizer, ids, marks = _marked("<img>", "<video>", *own)
    _named(tokenizer, image_token="<img>", image_start_token=own[0], image_end_token=own[1])
    tokenizer.pad_token = "<|endoftext|>"
    config = hf.HunYuanVLConfig(
        text_config={**language_sizes([3, 3, 2]), **marks, "head_dim": 16},
        vision_config={"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48,
                       "patch_size": PATCH, "out_hidden_size": 64, "text_hidden_size": 64, "max_image_size": 2 * SIDE},
        image_token_id=ids["<img>"],
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.HunYuanVLProcessor(
        hf.HunYuanVLImageProcessor(size=EDGES, patch_size=PATCH), tokenizer, chat_template=tokenizer.chat_template
    )
    return _save(folder, hf.HunYuanVLForConditionalGeneration(config), tokenizer, processor)


def kimi_k25(folder: Path) -> Path:
    """A tower that looks at four frames together; a decoder of DeepSeek's, whose keys come from a latent row."""
    tokenizer, ids, marks = _marked("<|media_pad|>", "<|kimi_k25_video_placeholder|>", "<|media_begin|>",
                                    "<|media_end|>", "", "")  # fmt: skip
    tokenizer.add_tokens(["<|media_content|>"], special_tokens=True)
    config = hf.Kimi_K25Config(
        text_config={"model_type": "deepseek_v3", **language_sizes(), **marks, "bos_token_id": None,
                     "num_key_value_heads": 4, "moe_intermediate_size": 32, "n_routed_experts": 4, "n_group": 2,
                     "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "kv_lora_rank": 16,
                     "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12},
        vision_config={"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48,
                       "patch_size": PATCH, "pos_emb_height": 8, "pos_emb_width": 8},
        projection_hidden_size=32,
        image_token_id=ids["<|media_pad|>"], video_token_id=ids["<|kimi_k25_video_placeholder|>"],
        vision_start_token_id=ids["<|media_begin|>"], vision_end_token_id=ids["<|media_end|>"],
        tie_word_embeddings=False,
    )  # fmt: skip
    size = {"max_height": 2 * SIDE, "max_width": 2 * SIDE}
    processor = hf.Kimi_K25Processor(
        hf.Kimi_K25ImageProcessor(size=size),
        tokenizer,
        hf.Kimi_K25VideoProcessor(size=size),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Kimi_K25ForConditionalGeneration(config), tokenizer, processor)


def cohere_compass(folder: Path) -> Path:
    """Qwen3-VL's tower and its rows for the decoder's first layers, before a decoder of Cohere's."""
    own = ("<|VISION_START|>", "<|VISION_END|>")
    tokenizer, ids, marks = _marked("<|IMAGE_PAD|>", "<|VIDEO_PAD|>", *own, "", "")
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    sizes = language_sizes([3, 3, 2])
    sizes["rope_parameters"] = {kind: dict(sizes["rope_parameters"]) for kind in set(kinds)}
    config = hf.CohereCompassConfig(
        text_config={**sizes, **marks, "bos_token_id": None, "logit_scale": 1.0,
                     "sliding_window": 24, "layer_types": kinds},
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "patch_size": PATCH,
                       "out_hidden_size": 64, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        image_token_id=ids["<|IMAGE_PAD|>"], video_token_id=ids["<|VIDEO_PAD|>"],
        vision_start_token_id=ids[own[0]], vision_end_token_id=ids[own[1]],
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.CohereCompassProcessor(
        hf.CohereCompassImageProcessor(size=EDGES, patch_size=PATCH),
        tokenizer,
        hf.CohereCompassVideoProcessor(size=FRAMES, patch_size=PATCH),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.CohereCompassForConditionalGeneration(config), tokenizer, processor)


def minimax_m3_vl(folder: Path) -> Path:
    """Marks and times come from the processor; here without the layers that look at chosen blocks of keys only."""
    picture, film = "]<]image[>[", "]<]video[>["
    own = ("]<]start of image[>[", "]<]end of image[>[")
    tokenizer, ids, marks = _tokenizer(picture, film, *own)
    tokenizer.chat_template = CHAT.replace("<image>", picture).replace("<video>", film)
    config = hf.MiniMaxM3VLConfig(
        text_config={**language_sizes(), **marks, "bos_token_id": None, "head_dim": 16, "rotary_dim": 8,
                     "intermediate_size": 32, "dense_intermediate_size": 96, "shared_intermediate_size": 32,
                     "num_local_experts": 4, "num_experts_per_tok": 2,
                     "mlp_layer_types": ["dense", "sparse", "sparse"]},
        vision_config={"num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 2, "intermediate_size": 48,
                       "patch_size": PATCH, "image_size": 2 * SIDE},
        image_token_index=ids[picture], video_token_index=ids[film],
        projector_hidden_size=48,
    )  # fmt: skip
    processor = hf.MiniMaxM3VLProcessor(
        hf.MiniMaxM3VLImageProcessor(size=EDGES),
        tokenizer,
        hf.MiniMaxM3VLVideoProcessor(size=SQUARE),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.MiniMaxM3SparseForConditionalGeneration(config), tokenizer, processor, settle=from_one)
