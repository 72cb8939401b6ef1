"""Small models whose layers keep states of all rows, with random weights. In: a folder. Out: that folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import transformers as hf
from penstock.engine.span import Rows
from torch import nn

from tests.engine.tried import CHAT, PATCH, SIDE, _save, _tokenizer
from tests.families.axes import EDGES, FRAMES, _marked
from tests.families.refusals import with_sound
from tests.families.tiled import _named
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
    return _qwen3_5(folder, hf.Qwen3_5MoeConfig, hf.Qwen3_5MoeForConditionalGeneration, 8, **_EXPERTS)


def lfm2_vl(folder: Path) -> Path:
    """Layers of short convolutions between those that attend; tiles of SigLIP 2, of any shape."""
    own = ("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
    tokenizer, ids, marks = _tokenizer("<image>", *own)
    _named(tokenizer, image_token="<image>", image_start_token=own[0], image_end_token=own[1],
           image_thumbnail_token=own[2])  # fmt: skip
    config = hf.Lfm2VlConfig(
        text_config={"model_type": "lfm2", **language_sizes(), **marks, "num_hidden_layers": 2,
                     "layer_types": ["conv", "full_attention"]},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "patch_size": 14, "num_patches": 16},
        image_token_id=ids["<image>"],
        projector_hidden_size=48,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.Lfm2VlProcessor(
        hf.Lfm2VlImageProcessor(encoder_patch_size=14, tile_size=56, size={"height": 56, "width": 56},
                                min_image_tokens=2, max_image_tokens=16, max_tiles=4),
        tokenizer,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip
    return _save(folder, hf.Lfm2VlForConditionalGeneration(config), tokenizer, processor)


def lfm3_vl(folder: Path) -> Path:
    tokenizer, ids, marks = _marked("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    config = hf.Lfm3VlConfig(
        text_config={"model_type": "lfm3", **language_sizes(), **marks, "head_dim": 16, "sliding_window": 24,
                     "rope_parameters": None, "layer_types": ["conv", "sliding_attention", "full_attention"]},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
                       "num_key_value_heads": 1, "patch_size": PATCH},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        projector_hidden_size=48,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.Lfm3VlProcessor(
        hf.Qwen2VLImageProcessor(size=EDGES, patch_size=PATCH),
        tokenizer,
        hf.Qwen3VLVideoProcessor(patch_size=PATCH, size=FRAMES),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Lfm3VlForConditionalGeneration(config), tokenizer, processor)


def _minicpm(folder: Path, config: Any, model: Any, processor: Any, images: Any, videos: Any, **more: Any) -> Path:
    own = ("<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>")
    tokenizer, ids, marks = _tokenizer("<|image_pad|>", "<|video_pad|>", *own)
    names = ("image_start", "image_end", "slice_start", "slice_end", "image_id_start", "image_id_end")
    _named(tokenizer, image_token="<|image_pad|>", video_token="<|video_pad|>",
           **{f"{name}_token": mark for name, mark in zip(names, own, strict=True)})  # fmt: skip
    chat = CHAT.replace("<image>", "<|image_pad|>").replace("<video>", "<|video_pad|>")
    made = config(
        text_config={"model_type": "qwen3_5_text", **language_sizes(), **marks, "num_hidden_layers": 2, **_DELTA},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 4 * SIDE, "patch_size": PATCH},
        insert_layer_id=1,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        tie_word_embeddings=False,
        **{name: value(ids, tokenizer) for name, value in more.items()},
    )  # fmt: skip
    sizes: dict[str, Any] = {"scale_resolution": 2 * SIDE, "patch_size": PATCH, "max_slice_nums": 2}
    tokenizer.chat_template = chat
    return _save(
        folder,
        model(made),
        tokenizer,
        processor(images(**sizes), videos(**sizes), tokenizer, chat_template=chat),
        4,
        remembering,
    )


def minicpmv4_6(folder: Path) -> Path:
    """Slices of a picture, each merged to a fourth twice; a number before each picture."""
    return _minicpm(
        folder,
        hf.MiniCPMV4_6Config,
        hf.MiniCPMV4_6ForConditionalGeneration,
        hf.MiniCPMV4_6Processor,
        hf.MiniCPMV4_6ImageProcessor,
        hf.MiniCPMV4_6VideoProcessor,
    )


def minicpmv4_7(folder: Path) -> Path:
    """As 4.6, on three axes of positions."""
    marks = {
        "image_start_id": "<image>",
        "image_end_id": "</image>",
        "slice_start_id": "<slice>",
        "slice_end_id": "</slice>",
    }
    return _minicpm(
        folder,
        hf.MiniCPMV4_7Config,
        hf.MiniCPMV4_7ForConditionalGeneration,
        hf.MiniCPMV4_7Processor,
        hf.MiniCPMV4_6ImageProcessor,
        hf.MiniCPMV4_6VideoProcessor,
        **{name: lambda ids, _, mark=mark: ids[mark] for name, mark in marks.items()},
        newline_id=lambda _, tokenizer: tokenizer("\n")["input_ids"][0],
    )


def minicpmv4_7_close(folder: Path) -> Path:
    """The same with words right behind a picture: a line's end there stands where a mark of the picture would."""
    minicpmv4_7(folder)
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("{{ '\n' + content['text'] }}", "{{ content['text'] }}"))
    return folder


def minicpm_ocr(folder: Path) -> Path:
    return _minicpm(
        folder,
        hf.MiniCPMOcrConfig,
        hf.MiniCPMOcrForConditionalGeneration,
        hf.MiniCPMOcrProcessor,
        hf.MiniCPMOcrImageProcessor,
        hf.MiniCPMOcrVideoProcessor,
    )


def nemotron_h_omni(folder: Path) -> Path:
    """Mamba 2 between layers that attend, without positions; RADIO's tower and Parakeet's."""
    own = ("<img>", "</img>", "<so_embedding>", "<so_start>", "<so_end>")
    tokenizer, ids, marks = _tokenizer("<image>", "<video>", *own)
    video = "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}<video>{% endfor %}"
    tokenizer.chat_template = CHAT.replace(video, video + video.replace("video", "audio").replace("<audio>", own[2]))
    config = hf.NemotronH_Omni_Reasoning_V3_Config(
        text_config={"model_type": "nemotron_h", **language_sizes(), **marks, "num_hidden_layers": 3,
                     "layer_types": ["linear_attention", "full_attention", "mlp"], "head_dim": 16,
                     "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 2},
        vision_config={"model_type": "radio", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "patch_size": PATCH, "image_size": 2 * SIDE,
                       "video_temporal_patch_size": 2},
        audio_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
                      "subsampling_conv_channels": 8, "num_mel_bins": 16, "projection_hidden_size": 48,
                      "projection_bias": False},
        vision_hidden_size=32, audio_token_id=ids["<so_embedding>"],
        projector_hidden_size=48,
        image_token_id=ids["<image>"], video_token_id=ids["<video>"],
    )  # fmt: skip
    processor = hf.NemotronH_Omni_Reasoning_V3Processor(
        hf.NemotronH_Omni_Reasoning_V3ImageProcessor(patch_size=PATCH, min_num_patches=4, max_num_patches=64),
        hf.NemotronH_Omni_Reasoning_V3VideoProcessor(
            patch_size=PATCH, video_target_num_patches=16, norm_mean=[0.5] * 3, norm_std=[0.5] * 3
        ),
        tokenizer,
        hf.ParakeetFeatureExtractor(feature_size=16),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.NemotronH_Omni_Reasoning_V3(config), tokenizer, processor)


def nemo_speechlm(folder: Path) -> Path:
    """An encoder of speech, and one that says who speaks; the placeholder's id is behind all words of the decoder."""
    tokenizer, ids, marks = _tokenizer("<|audio|>")
    tokenizer.chat_template = with_sound("<|audio|>")
    ear = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.Nemotron3_5TranscribeConfig(
        text_config={"model_type": "nemotron_h", **language_sizes(), **marks, "vocab_size": ids["<|audio|>"],
                     "num_hidden_layers": 3, "layer_types": ["linear_attention", "full_attention", "mlp"],
                     "head_dim": 16, "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 2},
        audio_config={"asr_config": {**ear, "num_mel_bins": 16},
                      "diarization_config": {"model_type": "nemotron3_diarization",
                                             "audio_config": {**ear, "num_mel_bins": 16},
                                             "head_config": {"hidden_size": 16, "audio_hidden_size": 32}}},
        word_timestamp_config={**ear, "vocab_size": 9, "blank_token_id": 8},
        audio_token_id=ids["<|audio|>"],
    )  # fmt: skip
    processor = hf.Nemotron3_5TranscribeProcessor(
        hf.NemotronAsrStreamingFeatureExtractor(feature_size=16),
        tokenizer,
        tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Nemotron3_5TranscribeForConditionalGeneration(config), tokenizer, processor)
