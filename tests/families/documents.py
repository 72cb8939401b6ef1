"""Small models made to read pages, and others whose pictures reach the decoder in more than one way; random weights.
In: a folder. Out: that folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import CHAT, PATCH, SIDE, _save, _tokenizer
from tests.families.tiled import ROWS, SQUARE, _named, from_one
from tests.fixtures.one_axis import SIGHT
from tests.fixtures.parts import language_sizes


def qianfan_ocr(folder: Path) -> Path:
    """InternVL's tiles; its template writes another word for a picture than its rows have."""
    tokenizer, ids, marks = _tokenizer("<img>", "</img>", "<IMG_CONTEXT>", "<image>")
    _named(tokenizer, start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>")
    config = hf.QianfanOCRConfig(
        vision_config=hf.QianfanOCRVisionConfig(**SIGHT),
        text_config=hf.Qwen3Config(**language_sizes(), **marks, head_dim=16),
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=ROWS // 4,
    )
    processor = hf.QianfanOCRProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer=tokenizer,
        image_seq_length=ROWS // 4,
        chat_template=CHAT,
    )
    return _save(folder, hf.QianfanOCRForConditionalGeneration(config), tokenizer, processor)


def granite_docling(folder: Path) -> Path:
    """Idefics 3's tiles; rows of three layers of the tower are added behind the first three layers of the decoder."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    tokenizer, ids, marks = _tokenizer("<fake_token_around_image>", "<image>", "<global-img>", *tiles)
    config = hf.GraniteDoclingConfig(
        vision_config={**SIGHT, "out_hidden_size": 64, "scale_factor": 2, "deepstack_visual_indexes": [0],
                       "use_fine_route": False},
        text_config={**language_sizes(), **marks, "bos_token_id": None, "attention_multiplier": 0.25,
                     "embedding_multiplier": 2.0, "logits_scaling": 1.0, "residual_multiplier": 0.7},
        image_token_id=ids["<image>"],
        pad_token_id=marks["pad_token_id"],
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.GraniteDoclingProcessor(
        hf.GraniteDoclingImageProcessor(size=SQUARE, max_patches=4),
        tokenizer=tokenizer,
        image_seq_len=ROWS // 4,
        chat_template=CHAT,
    )
    return _save(folder, hf.GraniteDoclingForConditionalGeneration(config), tokenizer, processor)


def granite4_vision(folder: Path) -> Path:
    """LLaVA-NeXT's tiles; rows from several layers of the tower go into several layers of the decoder."""
    tokenizer, ids, marks = _tokenizer("<image>")
    pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    sight = {**SIGHT, "hidden_size": 64, "num_attention_heads": 4}
    config = hf.Granite4VisionConfig(
        vision_config=hf.SiglipVisionConfig(**sight, vision_use_head=False),
        text_config={**language_sizes(), **marks, "bos_token_id": None, "attention_multiplier": 0.25,
                     "residual_multiplier": 0.7},
        image_token_index=ids["<image>"],
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        downsample_rate="1/2",
        deepstack_layer_map=[[-2, 0]],
        spatial_target_layers=[0, 1, 2, 2],
        projector_dropout=0.0,
        qformer_config={"model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 96,
                        "cross_attention_frequency": 1, "use_qformer_text_input": False},
    )  # fmt: skip
    processor = hf.Granite4VisionProcessor(
        image_processor=hf.LlavaNextImageProcessor(
            size={"shortest_edge": SIDE}, crop_size=SQUARE, image_grid_pinpoints=pinpoints
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        downsample_rate="1/2",
        chat_template=CHAT,
    )
    return _save(folder, hf.Granite4VisionForConditionalGeneration(config), tokenizer, processor)


def deepseek_vl_hybrid(folder: Path) -> Path:
    """DeepSeek-VL with a second tower, of SAM's kind, that looks at the picture larger."""
    tokenizer, ids, marks = _tokenizer("<image>")
    _named(tokenizer, image_token="<image>")
    config = hf.DeepseekVLHybridConfig(
        vision_config=hf.SiglipVisionConfig(**SIGHT, vision_use_head=False),
        high_res_vision_config=hf.SamVisionConfig(
            hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=2, image_size=256,
            patch_size=16, window_size=4, global_attn_indexes=[1], mlp_dim=48,
        ),
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        image_token_id=ids["<image>"],
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.DeepseekVLHybridProcessor(
        image_processor=hf.DeepseekVLHybridImageProcessor(size=SQUARE, high_res_size={"height": 256, "width": 256}),
        tokenizer=tokenizer,
        num_image_tokens=ROWS,
        chat_template=CHAT,
    )
    return _save(folder, hf.DeepseekVLHybridForConditionalGeneration(config), tokenizer, processor)


def step3p7(folder: Path) -> Path:
    """One small picture of the whole and crops of it, each between marks; experts in the decoder."""
    own = ("<im_patch>", "<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>")
    tokenizer, ids, marks = _tokenizer(*own)
    tokenizer.chat_template = CHAT.replace("<image>", "<im_patch>")
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    sizes: dict[str, Any] = {"size": {"height": 8 * PATCH, "width": 8 * PATCH}, "patch_size": 4 * PATCH}
    config = hf.Step3p7Config(
        vision_config={**SIGHT, "mlp_ratio": 2.0, "image_size": 8 * PATCH, "max_position_embeddings": 64},
        text_config={**language_sizes(), **marks, "head_dim": 16, "layer_types": kinds, "sliding_window": 24,
                     "mlp_layer_types": ["dense", "sparse", "sparse"], "n_routed_experts": 4, "num_experts_per_tok": 2,
                     "moe_intermediate_size": 32, "share_expert_dim": 32},
        image_token_id=ids["<im_patch>"],
    )  # fmt: skip
    processor = hf.Step3p7Processor(
        image_processor=hf.Step3p7ImageProcessor(**sizes),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Step3p7ForConditionalGeneration(config), tokenizer, processor, settle=from_one)


def got_ocr2(folder: Path) -> Path:
    """A tower of SAM's kind, here with layers of windows only; its processor takes pictures as one list for all texts,
    and always lays 256 rows."""
    tokenizer, ids, marks = _tokenizer("<img>", "</img>", "<imgpad>")
    tokenizer.chat_template = CHAT.replace("<image>", "<img><imgpad></img>")
    config = hf.GotOcr2Config(
        vision_config={"hidden_size": 16, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 128, "patch_size": 2, "window_size": 4, "global_attn_indexes": [],
                       "mlp_dim": 24},
        text_config=hf.Qwen2Config(**language_sizes(), **marks),
        image_token_index=ids["<imgpad>"],
        image_seq_length=256,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.GotOcr2Processor(
        image_processor=hf.GotOcr2ImageProcessor(size={"height": 128, "width": 128}),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.GotOcr2ForConditionalGeneration(config), tokenizer, processor)
