"""Small models of types that came to the library after others of their kind, with random weights. In: a folder. Out:
that folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import CHAT, PATCH, SIDE, _save, _tokenizer
from tests.families.axes import EDGES, FRAMES, _marked
from tests.families.refusals import with_sound
from tests.families.tiled import SQUARE, _named, from_one
from tests.fixtures.one_axis import SIGHT
from tests.fixtures.parts import language_sizes


def glmga(folder: Path) -> Path:
    """GLM-4.6V's model and another processor of its pictures and films."""
    tokenizer, ids, marks = _marked("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>",
                                    "<|begin_of_video|>", "<|end_of_video|>")  # fmt: skip
    config: Any = hf.GlmgaConfig(
        text_config={**language_sizes([2, 3, 3]), **marks},
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "image_size": SIDE,
                       "patch_size": PATCH, "out_hidden_size": 64},
        image_token_id=ids["<|image|>"], video_token_id=ids["<|video|>"],
        image_start_token_id=ids["<|begin_of_image|>"], image_end_token_id=ids["<|end_of_image|>"],
        video_start_token_id=ids["<|begin_of_video|>"], video_end_token_id=ids["<|end_of_video|>"],
    )  # fmt: skip
    processor = hf.Glm46VProcessor(
        hf.GlmgaImageProcessor(size=EDGES),
        tokenizer,
        hf.GlmgaVideoProcessor(size=FRAMES, max_image_size={"longest_edge": FRAMES["longest_edge"]}),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Glm46VForConditionalGeneration(config), tokenizer, processor)


def pp_chart2table(folder: Path) -> Path:
    """GOT-OCR 2's model with another processor, which lays no rows: the chat template writes the placeholders of all.
    That of the makers says the same whatever is asked; this one shows what is asked."""
    tokenizer, ids, marks = _tokenizer("<img>", "</img>", "<imgpad>")
    tokenizer.chat_template = CHAT.replace("<image>", "<img>" + 4 * "<imgpad>" + "</img>")
    config: Any = hf.PPChart2TableConfig(
        vision_config={"hidden_size": 16, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 128, "patch_size": 16, "window_size": 4, "global_attn_indexes": [],
                       "mlp_dim": 24},
        text_config={"model_type": "qwen2", **language_sizes(), **marks},
        image_token_index=ids["<imgpad>"], image_seq_length=4, tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.PPChart2TableProcessor(
        image_processor=hf.PPChart2TableImageProcessor(size={"height": 128, "width": 128}),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.GotOcr2ForConditionalGeneration(config), tokenizer, processor)


def deepseek_ocr2(folder: Path) -> Path:
    """A tower of SAM's kind, then a decoder's layers with queries, of which a row is each; tiles and the whole."""
    tokenizer, ids, marks = _tokenizer("<image>")
    _named(tokenizer, image_token="<image>")
    config = hf.DeepseekOcr2Config(
        vision_config={
            "sam_config": {"hidden_size": 16, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
                           "image_size": 1024, "patch_size": 16, "window_size": 4, "global_attn_indexes": [],
                           "mlp_dim": 24, "downsample_channels": [12, 32]},
            "encoder_config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                               "num_attention_heads": 2, "num_key_value_heads": 2},
        },
        text_config={**language_sizes(), **marks, "moe_intermediate_size": 32, "n_routed_experts": 4,
                     "num_experts_per_tok": 2, "n_shared_experts": 1,
                     "mlp_layer_types": ["dense", "sparse", "sparse"]},
        image_token_id=ids["<image>"],
    )  # fmt: skip
    processor = hf.DeepseekOcr2Processor(hf.DeepseekOcr2ImageProcessor(), tokenizer, chat_template=CHAT)
    return _save(folder, hf.DeepseekOcr2ForConditionalGeneration(config), tokenizer, processor, seed=9)


def shieldgemma2(folder: Path) -> Path:
    """Gemma 3 with a processor that writes the whole conversation, about what a picture must not show."""
    tokenizer, ids, marks = _tokenizer("<image>", "<boi>", "<eoi>")
    _named(tokenizer, image_token="<image>", boi_token="<boi>", eoi_token="<eoi>")
    tokenizer.bos_token = "<|endoftext|>"
    config = hf.ShieldGemma2Config(
        vision_config={"model_type": "siglip_vision_model", **SIGHT, "vision_use_head": False},
        text_config={"model_type": "gemma3_text", **language_sizes(), **marks, "head_dim": 16, "sliding_window": 24},
        mm_tokens_per_image=4,
        boi_token_index=ids["<boi>"], eoi_token_index=ids["<eoi>"], image_token_index=ids["<image>"],
        tie_word_embeddings=True,
    )  # fmt: skip
    processor = hf.ShieldGemma2Processor(
        image_processor=hf.Gemma3ImageProcessor(size=SQUARE), tokenizer=tokenizer, image_seq_length=4,
        chat_template=CHAT.replace("<image>", "<boi>"),
    )  # fmt: skip
    model = hf.ShieldGemma2ForImageClassification(config)
    _save(folder, model.model, tokenizer, processor, settle=from_one)
    model.save_pretrained(folder)
    return folder


def hyperclovax_vision_v2(folder: Path) -> Path:
    """Qwen2.5-VL's tower before a decoder of one axis, whose logits are multiplied."""
    tokenizer, ids, marks = _marked("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    config = hf.HyperCLOVAXVisionV2Config(
        text_config={"model_type": "hyperclovax", **language_sizes(), **marks, "bos_token_id": None, "head_dim": 16,
                     "logits_scaling": 0.5, "attention_multiplier": 0.25, "residual_multiplier": 0.7},
        vision_config={"model_type": "qwen2_5_vl_vision", "depth": 2, "hidden_size": 32, "num_heads": 2,
                       "intermediate_size": 48, "patch_size": PATCH, "out_hidden_size": 64, "window_size": 2 * PATCH,
                       "fullatt_block_indexes": [1]},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"], tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.HyperCLOVAXVisionV2Processor(
        hf.Qwen2VLImageProcessor(size=EDGES),
        tokenizer,
        hf.Qwen2VLVideoProcessor(size=FRAMES),
        chat_template=tokenizer.chat_template,
    )
    _save(folder, hf.HyperCLOVAXVisionV2ForConditionalGeneration(config), tokenizer, processor)
    # Its tokenizer's class takes no null for it, which that of the small tokenizer has.
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "add_prefix_space": False}))
    return folder


def muse_glimmer(folder: Path) -> Path:
    """A tower that looks in windows in some layers; logits are multiplied and capped."""
    names = ("<|patch|>", "<|video|>", "<|image_start|>", "<|image_end|>", "<|vid_start|>", "<|vid_end|>",
             "<|vid_frame_separator|>")  # fmt: skip
    tokenizer, ids, marks = _tokenizer(*names)
    tokenizer.chat_template = CHAT.replace("<image>", "<|patch|>").replace("<video>", "<|video|>")
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = hf.MuseGlimmerConfig(
        text_config={**language_sizes(), **marks, "bos_token_id": None, "head_dim": 16, "sliding_window": 24,
                     "layer_types": kinds, "output_multiplier": 0.5},
        vision_config={"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48,
                       "patch_size": PATCH, "pos_emb_height": 8, "pos_emb_width": 8},
        image_token_id=ids["<|patch|>"], video_token_id=ids["<|video|>"],
        out_hidden_size=128, projector_hidden_size=48,
    )  # fmt: skip
    processor = hf.MuseGlimmerProcessor(
        hf.MuseGlimmerImageProcessor(size=EDGES),
        hf.MuseGlimmerVideoProcessor(size=FRAMES),
        tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.MuseGlimmerForConditionalGeneration(config), tokenizer, processor)


def muse_spark(folder: Path) -> Path:
    """Muse Glimmer's tower, a tower of convolutions for sound, and experts in the decoder."""
    names = ("<|patch|>", "<|video|>", "<|image_start|>", "<|image_end|>", "<|vid_start|>", "<|vid_end|>",
             "<|vid_frame_separator|>", "<|audio|>", "<|soft_audio_start|>", "<|soft_audio_end|>")  # fmt: skip
    tokenizer, ids, marks = _tokenizer(*names)
    chat = with_sound("<|audio|>")
    tokenizer.chat_template = chat.replace("<image>", "<|patch|>").replace("<video>", "<|video|>")
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = hf.MuseSparkConfig(
        text_config={**language_sizes(), **marks, "bos_token_id": None, "head_dim": 16, "sliding_window": 24,
                     "layer_types": kinds, "output_multiplier": 0.5, "qk_scale_factor": 1.0, "num_local_experts": 4,
                     "num_experts_per_tok": 2, "moe_intermediate_size": 32, "moe_hidden_size": 32},
        vision_config={"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48,
                       "patch_size": PATCH, "pos_emb_height": 8, "pos_emb_width": 8},
        audio_config={"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1], "out_hidden_size": 64},
        image_token_id=ids["<|patch|>"], video_token_id=ids["<|video|>"], audio_token_id=ids["<|audio|>"],
        out_hidden_size=128, projector_hidden_size=48,
    )  # fmt: skip
    processor = hf.MuseSparkProcessor(
        hf.MuseGlimmerImageProcessor(size=EDGES),
        hf.MuseGlimmerVideoProcessor(size=FRAMES),
        tokenizer,
        hf.MuseSparkFeatureExtractor(),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.MuseSparkForConditionalGeneration(config), tokenizer, processor, seed=5)


def cosmos3_edge(folder: Path) -> Path:
    """The time of each frame in words before it; positions of three axes."""
    tokenizer, ids, marks = _marked("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "", "")
    config = hf.Cosmos3EdgeConfig(
        text_config={**language_sizes([3, 3, 2]), **marks, "bos_token_id": None, "head_dim": 16},
        vision_config={"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48,
                       "patch_size": PATCH, "num_patches": 16},
        projector_hidden_size=48,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    sizes: dict[str, Any] = {"patch_size": PATCH}
    processor = hf.Cosmos3EdgeProcessor(
        hf.Cosmos3EdgeImageProcessor(size=EDGES, **sizes),
        tokenizer,
        hf.Cosmos3EdgeVideoProcessor(size=FRAMES, **sizes),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Cosmos3EdgeForConditionalGeneration(config), tokenizer, processor)


def cosmos3_omni(folder: Path) -> Path:
    """Qwen3-VL's tower, decoder and processor."""
    tokenizer, ids, marks = _marked("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "", "")
    config = hf.Cosmos3OmniConfig(
        text_config={**language_sizes([3, 3, 2]), **marks, "bos_token_id": None, "head_dim": 16},
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "patch_size": PATCH,
                       "out_hidden_size": 64, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    sizes: dict[str, Any] = {"patch_size": PATCH}
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(size=EDGES, **sizes),
        tokenizer,
        hf.Qwen3VLVideoProcessor(size=FRAMES, **sizes),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Cosmos3OmniForConditionalGeneration(config), tokenizer, processor)
