"""Small models of the Gemma family that are tried, with random weights. In: a folder. Out: that one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import _save
from tests.fixtures.parts import ROPE_THETA, VOCAB_ROWS, language_sizes

from .hearing import tokenizer_of

_MARKS = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>", "audio_token": "<sound>",
          "boa_token": "<boa>", "eoa_token": "<eoa>"}  # fmt: skip
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'video' %}<|video|>"
    "{% elif part['type'] == 'audio' %}<sound>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A tower of Conformer's kind: each block of four rows sees four before it.
_EAR: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "subsampling_conv_channels": [16, 4],
    "attention_chunk_size": 4, "attention_context_left": 5, "output_proj_dims": 32, "conv_kernel_size": 3,
}  # fmt: skip
_SIGHT: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 48, "patch_size": 8, "pooling_kernel_size": 2, "position_embedding_size": 64,
}  # fmt: skip


def _sizes(marks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Layers that see all rows have larger heads than those with a window."""
    turned = {"rope_type": "default", "rope_theta": ROPE_THETA}
    partly = {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": ROPE_THETA}
    return {
        **language_sizes(), **marks, "bos_token_id": None, "head_dim": 16, "global_head_dim": 24, "sliding_window": 80,
        "rope_parameters": {"sliding_attention": turned, "full_attention": partly},
        "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], **more,
    }  # fmt: skip


def gemma4(folder: Path) -> Path:
    """As the small ones are: they see and hear, layers have embeddings of the words for themselves, and the last two
    read the keys of the two before them."""
    return _gemma4(
        folder, _EAR, 3, num_hidden_layers=4, num_kv_shared_layers=2, use_double_wide_mlp=True, sliding_window=24,
        layer_types=["sliding_attention", "full_attention"] * 2, hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=1152,
    )  # fmt: skip


def gemma4_large(folder: Path) -> Path:
    """As the large ones are: the rows of a picture see one another in layers with a window, values are keys that were
    not turned, and layers that see all rows have fewer heads."""
    return _gemma4(
        folder, None, 5, hidden_size_per_layer_input=0, use_bidirectional_attention="vision", attention_k_eq_v=True,
        num_global_key_value_heads=1, final_logit_softcapping=30.0,
    )  # fmt: skip


def gemma3n(folder: Path) -> Path:
    """Its tower of convolutions is of the package timm, and a sound is as many rows however long it is. Words behind
    those of the text are embedded by the projectors of the towers."""
    tokenizer, ids, marks = tokenizer_of("<boi>", "<boa>", named={})
    words = len(tokenizer)
    far = ("<eoi>", "<image>", "<eoa>", "<sound>")
    tokenizer.add_tokens([*far], special_tokens=True)
    tokenizer._set_model_specific_special_tokens(_MARKS)
    ids |= {name: words + place for place, name in enumerate(far)}
    tokenizer.chat_template = _CHAT
    turned = {"rope_type": "default", "rope_theta": ROPE_THETA}
    config = hf.Gemma3nConfig(
        text_config={
            **language_sizes(), **marks, "bos_token_id": None, "head_dim": 16, "sliding_window": 24,
            "rope_parameters": {"sliding_attention": turned, "full_attention": turned},
            "num_hidden_layers": 4, "num_kv_shared_layers": 2, "laurel_rank": 8, "altup_num_inputs": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2, "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": words, "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        },
        vision_config={"architecture": "test_efficientnet", "hidden_size": 256, "vocab_size": 2,
                       "vocab_offset": words},
        audio_config={"hidden_size": 32, "conf_num_hidden_layers": 2, "conf_num_attention_heads": 2,
                      "conf_attention_chunk_size": 4, "conf_attention_context_left": 5, "input_feat_size": 16,
                      "sscp_conv_channel_size": [8, 4], "vocab_offset": ids["<eoa>"],
                      "vocab_size": VOCAB_ROWS - ids["<eoa>"],
                      "conf_conv_kernel_size": 3},
        tie_word_embeddings=False, audio_soft_tokens_per_image=188, vision_soft_tokens_per_image=16,
        image_token_id=ids["<image>"], audio_token_id=ids["<sound>"], boi_token_id=ids["<boi>"],
        eoi_token_id=ids["<eoi>"], boa_token_id=ids["<boa>"], eoa_token_id=ids["<eoa>"],
    )  # fmt: skip
    processor = hf.Gemma3nProcessor(
        hf.Gemma3nAudioFeatureExtractor(feature_size=16),
        hf.SiglipImageProcessor(size={"height": 128, "width": 128}),
        tokenizer,
        chat_template=_CHAT,
        image_seq_length=16,
    )
    return _save(folder, hf.Gemma3nForConditionalGeneration(config), tokenizer, processor)


def gemma4_unified(folder: Path) -> Path:
    """No towers: patches and pieces of 40 ms go through one layer each. Rows of a picture see one another in layers
    with a window."""
    tokenizer, ids, marks = _marked()
    config = hf.Gemma4UnifiedConfig(
        text_config=_sizes(marks, num_global_key_value_heads=1), **_ids(ids), tie_word_embeddings=False,
        vision_config={"patch_size": 4, "pooling_kernel_size": 2, "mm_embed_dim": 64, "mm_posemb_size": 64,
                       "output_proj_dims": 64},
        audio_config={"audio_embed_dim": 640},
    )  # fmt: skip
    seen: dict[str, Any] = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = hf.Gemma4UnifiedProcessor(
        hf.Gemma4UnifiedAudioFeatureExtractor(),
        hf.Gemma4UnifiedImageProcessor(**seen),
        tokenizer,
        hf.Gemma4UnifiedVideoProcessor(**seen),
        chat_template=_CHAT,
    )
    return _save(folder, hf.Gemma4UnifiedForConditionalGeneration(config), tokenizer, processor)


def _marked() -> tuple[Any, dict[str, int], dict[str, Any]]:
    """Tokenizer, ids and end tokens of a Gemma 4."""
    special = [mark for mark in _MARKS.values() if mark != "<sound>"]
    tokenizer, ids, marks = tokenizer_of("<sound>", *special, "<|video|>", named=_MARKS)
    tokenizer.chat_template = _CHAT
    return tokenizer, ids, marks


def _ids(ids: dict[str, int]) -> dict[str, Any]:
    named = {"image_token_id": "<image>", "video_token_id": "<|video|>", "audio_token_id": "<sound>",
             "boi_token_id": "<boi>", "eoi_token_id": "<eoi>", "boa_token_id": "<boa>",
             "eoa_token_index": "<eoa>"}  # fmt: skip
    return {name: ids[mark] for name, mark in named.items()}


def _gemma4(folder: Path, ear: dict[str, Any] | None, seed: int, **text: Any) -> Path:
    tokenizer, ids, marks = _marked()
    config = hf.Gemma4Config(
        text_config=_sizes(marks, **text),
        vision_config=_SIGHT,
        audio_config=ear,
        tie_word_embeddings=False,
        **_ids(ids),
    )
    seen: dict[str, Any] = {"patch_size": 8, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(feature_size=16),
        hf.Gemma4ImageProcessor(**seen),
        tokenizer,
        hf.Gemma4VideoProcessor(**seen),
        chat_template=_CHAT,
    )
    return _save(folder, hf.Gemma4ForConditionalGeneration(config), tokenizer, processor, seed)
