"""Small models whose pictures are squares of one size, or tiles of them, with random weights: a tower of CLIP's or
SigLIP's kind, a projector, a decoder whose rows stand on one axis. In: a folder. Out: that folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import CHAT, PATCH, SIDE, _save, _tokenizer
from tests.fixtures.one_axis import SIGHT
from tests.fixtures.parts import language_sizes

SQUARE = {"height": SIDE, "width": SIDE}
ROWS = (SIDE // PATCH) ** 2  # patches of a square


def _named(tokenizer: Any, **names: str) -> Any:
    """Tokens that a processor asks of its tokenizer by name."""
    tokenizer._set_model_specific_special_tokens(names)
    return tokenizer


def from_one(model: Any) -> None:
    """The decoder's norms count from one, as Gemma's."""
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight") and "vision" not in name:
            weight.data.zero_()


def llava_next_video(folder: Path) -> Path:
    """LLaVA-NeXT's tiles; frames are each a square, whose patches are pooled by fours."""
    tokenizer, ids, marks = _tokenizer("<image>", "<video>")
    pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    config = hf.LlavaNextVideoConfig(
        vision_config=hf.CLIPVisionConfig(**SIGHT),
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
    )
    size: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}
    processor = hf.LlavaNextVideoProcessor(
        image_processor=hf.LlavaNextImageProcessor(**size, image_grid_pinpoints=pinpoints),
        video_processor=hf.LlavaNextVideoVideoProcessor(**size),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    return _save(folder, hf.LlavaNextVideoForConditionalGeneration(config), tokenizer, processor)


def internvl(folder: Path) -> Path:
    """Frames are pictures between marks, each with its number in words before it; no method of the model takes video,
    and pictures and frames share their placeholder."""
    tokenizer, ids, marks = _tokenizer("<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    tokenizer.chat_template = CHAT.replace("<image>", "<IMG_CONTEXT>")
    _named(tokenizer, start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
           video_token="<video>")  # fmt: skip
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**SIGHT),
        text_config=hf.Qwen2Config(**language_sizes(), **marks),
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=ROWS // 4,
        tie_word_embeddings=False,
    )
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4),
        video_processor=hf.InternVLVideoProcessor(size=SQUARE),
        tokenizer=tokenizer,
        image_seq_length=ROWS // 4,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.InternVLForConditionalGeneration(config), tokenizer, processor)


def vipllava(folder: Path) -> Path:
    """A LLaVA that looks at several layers of its tower."""
    tokenizer, ids, marks = _tokenizer("<image>")
    config = hf.VipLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**SIGHT),
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        image_token_index=ids["<image>"],
        vision_feature_layer=[-2, -1],
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    return _save(folder, hf.VipLlavaForConditionalGeneration(config), tokenizer, processor)


def ovis2(folder: Path) -> Path:
    """Rows are mixtures over words of the tower's own; marks in a picture are learnt too."""
    own = ("<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    tokenizer, ids, marks = _tokenizer("<image>", *own)
    config = hf.Ovis2Config(
        vision_config={**SIGHT, "vocab_size": 128, "hidden_stride": 2, "num_visual_indicator_tokens": 5},
        text_config=hf.Qwen2Config(**language_sizes(), **marks).to_dict(),
        image_token_id=ids["<IMG_ATOM>"],
        visual_indicator_token_ids=[ids[name] for name in own[1:]],
        vocab_size=language_sizes()["vocab_size"],
        hidden_size=language_sizes()["hidden_size"],
        tie_word_embeddings=False,
    )
    processor = hf.Ovis2Processor(
        image_processor=hf.Ovis2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4),
        tokenizer=tokenizer,
        image_seq_length=ROWS // 4,
        chat_template=CHAT,
    )
    return _save(folder, hf.Ovis2ForConditionalGeneration(config), tokenizer, processor)


def aya_vision(folder: Path) -> Path:
    """Tiles with words of their place before each; a decoder of Cohere's, which sees a window in most layers."""
    own = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL",
           *(f"TILE_{number}" for number in range(1, 5)))  # fmt: skip
    tokenizer, ids, marks = _tokenizer("<image>", *own)
    config = hf.AyaVisionConfig(
        vision_config=hf.SiglipVisionConfig(**SIGHT, vision_use_head=False),
        text_config=_cohere(marks),
        image_token_index=ids["<|IMG_PATCH|>"],
        tie_word_embeddings=False,
    )
    processor = hf.AyaVisionProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer=tokenizer,
        patch_size=PATCH,
        img_size=SIDE,
        downsample_factor=2,
        chat_template=CHAT,
    )
    return _save(folder, hf.AyaVisionForConditionalGeneration(config), tokenizer, processor)


def _cohere(marks: dict[str, Any]) -> Any:
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    return hf.Cohere2Config(**language_sizes(), **marks, sliding_window=24, layer_types=kinds, logit_scale=1.0)


def cohere2_vision(folder: Path) -> Path:
    """As Aya, with a mark behind each tile and no words."""
    own = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>")
    tokenizer, ids, marks = _tokenizer(*own)
    tokenizer.chat_template = CHAT.replace("<image>", "<|IMG_PATCH|>")
    _named(tokenizer, boi_token=own[0], eoi_token=own[1], image_token=own[2], img_line_break_token=own[3])
    patch = SIDE // PATCH // 2  # of what the processor counts patch * patch a tile
    sizes: dict[str, Any] = {"size": SQUARE, "patch_size": patch, "max_patches": 4}
    config = hf.Cohere2VisionConfig(
        vision_config=hf.SiglipVisionConfig(**SIGHT, vision_use_head=False),
        text_config=_cohere(marks),
        image_token_id=ids["<|IMG_PATCH|>"],
        alignment_intermediate_size=64,
        tie_word_embeddings=False,
    )
    processor = hf.Cohere2VisionProcessor(
        image_processor=hf.Cohere2VisionImageProcessor(**sizes),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Cohere2VisionForConditionalGeneration(config), tokenizer, processor)


def aria(folder: Path) -> Path:
    """Queries that look at the tower's rows, as many as the picture's size has; a decoder of experts."""
    tokenizer, ids, marks = _tokenizer("<image>")
    _named(tokenizer, image_token="<image>")
    config = hf.AriaConfig(
        vision_config={"model_type": "idefics3_vision", **SIGHT, "image_size": 980, "patch_size": 70},
        text_config={**language_sizes(), **marks, "moe_num_experts": 4, "intermediate_size": 48},
        projector_patch_to_query_dict={(980 // 70) ** 2: 4},
        image_token_index=ids["<image>"],
    )
    processor = hf.AriaProcessor(
        image_processor=hf.AriaImageProcessor(),
        tokenizer=tokenizer,
        size_conversion={980: 4},
        chat_template=CHAT,
    )
    return _save(folder, hf.AriaForConditionalGeneration(config), tokenizer, processor)


def deepseek_vl(folder: Path) -> Path:
    """A tower of SigLIP's, an aligner; the picture is padded to a square."""
    tokenizer, ids, marks = _tokenizer("<image>")
    _named(tokenizer, image_token="<image>")
    config = hf.DeepseekVLConfig(
        vision_config=hf.SiglipVisionConfig(**SIGHT, vision_use_head=False),
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        image_token_id=ids["<image>"],
        tie_word_embeddings=False,
    )
    processor = hf.DeepseekVLProcessor(
        image_processor=hf.DeepseekVLImageProcessor(size=SQUARE),
        tokenizer=tokenizer,
        num_image_tokens=ROWS,
        chat_template=CHAT,
    )
    return _save(folder, hf.DeepseekVLForConditionalGeneration(config), tokenizer, processor)


def janus(folder: Path) -> Path:
    """As DeepSeek-VL, and an encoder of its own for the pictures that it makes, which nothing here asks for."""
    tokenizer, ids, marks = _tokenizer("<image>", "<begin_of_image>", "<end_of_image>")
    _named(tokenizer, image_token="<image>", boi_token="<begin_of_image>", eoi_token="<end_of_image>")
    config = hf.JanusConfig(
        vision_config=hf.JanusVisionConfig(**SIGHT, mlp_ratio=2, projection_dim=64, num_image_tokens=ROWS),
        vq_config=hf.JanusVQVAEConfig(
            embed_dim=8, num_embeddings=32, latent_channels=32, base_channels=32, channel_multiplier=[1, 1],
            num_res_blocks=1, projection_dim=64, image_token_embed_dim=64,
        ),
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        image_token_id=ids["<image>"],
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.JanusProcessor(
        image_processor=hf.JanusImageProcessor(size=SQUARE),
        tokenizer=tokenizer,
        num_image_tokens=ROWS,
        chat_template=CHAT,
    )
    return _save(folder, hf.JanusForConditionalGeneration(config), tokenizer, processor)


def lighton_ocr(folder: Path) -> Path:
    """Pixtral's tower, four of its rows in one; no marks at the end of a line."""
    tokenizer, ids, marks = _tokenizer("<|image_pad|>", "<|vision_pad|>", "<|vision_end|>")
    tokenizer.chat_template = CHAT.replace("<image>", "<|image_pad|>")
    _named(tokenizer, image_token="<|image_pad|>", image_break_token="<|vision_pad|>", image_end_token="<|vision_end|>")
    sight = {name: value for name, value in SIGHT.items() if name != "image_size"}
    config = hf.LightOnOcrConfig(
        vision_config=hf.PixtralVisionConfig(**sight, image_size=2 * SIDE),
        text_config=hf.Qwen3Config(**language_sizes(), **marks, head_dim=16),
        image_token_id=ids["<|image_pad|>"],
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    processor = hf.LightOnOcrProcessor(
        image_processor=hf.PixtralImageProcessor(size={"longest_edge": 2 * SIDE}, patch_size=PATCH),
        tokenizer=tokenizer,
        patch_size=PATCH,
        spatial_merge_size=2,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.LightOnOcrForConditionalGeneration(config), tokenizer, processor)


def fast_vlm(folder: Path) -> Path:
    """A tower of the package timm, of convolutions and attention."""
    tokenizer, ids, marks = _tokenizer("<image>")
    side = 128  # one row for 64 by 64 pixels
    narrow = {"embed_dims": [8, 16, 32, 64, 128], "layers": [1, 1, 1, 1, 1], "stem_use_scale_branch": False}
    config = hf.FastVlmConfig(
        vision_config={"model_type": "timm_wrapper", "architecture": "fastvit_mci3", "do_pooling": True,
                       "hidden_size": 256, "model_args": {**narrow, "inference_mode": True}},
        text_config=hf.Qwen2Config(**language_sizes(), **marks),
        image_token_index=ids["<image>"],
        image_seq_length=(side // 64) ** 2,
    )  # fmt: skip
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer=tokenizer,
        patch_size=64,
        vision_feature_select_strategy="full",
        chat_template=CHAT,
    )
    return _save(folder, hf.FastVlmForConditionalGeneration(config), tokenizer, processor)


def perception_lm(folder: Path) -> Path:
    """A tower of the package timm, whose rows are pooled; pictures as tiles, frames each as one."""
    tokenizer, ids, marks = _tokenizer("<image>", "<video>")
    _named(tokenizer, image_token="<image>", video_token="<video>")
    sight = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": [SIDE, SIDE], "global_pool": "",
             "use_post_transformer_norm": False, "init_values": 0.1, "ref_feat_shape": [4, 4]}  # fmt: skip
    config = hf.PerceptionLMConfig(
        vision_config={"model_type": "timm_wrapper", "architecture": "vit_pe_core_large_patch14_336",
                       "model_args": sight},
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        vision_use_cls_token=True, projector_pooling_ratio=2,
        image_token_id=ids["<image>"], video_token_id=ids["<video>"],
    )  # fmt: skip
    processor = hf.PerceptionLMProcessor(
        image_processor=hf.PerceptionLMImageProcessor(tile_size=SIDE, max_num_tiles=4, vision_input_type="thumb+tile"),
        video_processor=hf.PerceptionLMVideoProcessor(size=SQUARE),
        tokenizer=tokenizer,
        patch_size=PATCH,
        pooling_ratio=2,
        chat_template=CHAT,
    )
    return _save(folder, hf.PerceptionLMForConditionalGeneration(config), tokenizer, processor)
