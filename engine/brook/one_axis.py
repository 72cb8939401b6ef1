"""The small models of recipe.py that see and whose rows stand on one axis of positions. In: a folder. Out: that folder
with weights, configuration, tokenizer and processor files. It does not know where models are kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import text as words
from .parts import MAX_POSITIONS, ROPE_THETA, draw, language_sizes, make_tokenizer, quiet

LLAVA_SEED = 11
ONEVISION_SEED = 2
GEMMA_SEED = 7
SMOL_SEED = 2
_SIDE, _PATCH = 56, 14
SIGHT: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": _SIDE,
    "patch_size": _PATCH,
}


def build_llava(folder: Path) -> None:
    """Write a small LLaVA 1.5 in fp32: CLIP's tower, a projector, a Llama, and a tokenizer that begins with `<s>`."""
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    bare = make_tokenizer("", {}, words.LLAVA_SPECIAL_TOKENS, "</s>").backend_tokenizer
    ids = {name: bare.token_to_id(name) for name in words.LLAVA_SPECIAL_TOKENS}
    bare.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", ids["<s>"])])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=MAX_POSITIONS
    )
    marks = {"bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"], "pad_token_id": ids["<pad>"]}
    own: dict[str, Any] = SIGHT | {"num_hidden_layers": 3}
    sight = CLIPVisionConfig(**own)
    text = LlamaConfig(**language_sizes(), **marks)
    config = LlavaConfig(vision_config=sight, text_config=text, image_token_index=ids["<image>"])
    _save(folder, LlavaForConditionalGeneration(config), tokenizer, LLAVA_SEED, marks)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}),
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.LLAVA_CHAT_TEMPLATE,
    ).save_pretrained(folder)


def build_llava_onevision(folder: Path) -> None:
    """Write a small LLaVA-OneVision in fp32: SigLIP's tower, a projector, a Qwen2; pictures of up to two tiles by
    two."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )

    tokenizer = make_tokenizer(words.ONEVISION_CHAT_TEMPLATE, {}, words.ONEVISION_SPECIAL_TOKENS)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in words.ONEVISION_SPECIAL_TOKENS}
    marks = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    pinpoints = [[height, width] for height in (_SIDE, 2 * _SIDE) for width in (_SIDE, 2 * _SIDE)]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**SIGHT, vision_use_head=False),
        text_config=Qwen2Config(**language_sizes(), **marks),
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    _save(folder, model, tokenizer, ONEVISION_SEED, marks)
    size = {"height": _SIDE, "width": _SIDE}
    LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=dict(size), image_grid_pinpoints=pinpoints),
        video_processor=LlavaOnevisionVideoProcessor(size=dict(size)),
        tokenizer=tokenizer,
        num_image_tokens=(_SIDE // _PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=words.ONEVISION_CHAT_TEMPLATE,
    ).save_pretrained(folder)


def build_gemma3(folder: Path) -> None:
    """Write a small Gemma 3 in fp32: SigLIP's tower, a pooling projector, two layers that see a window and one that
    sees everything."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
        SiglipVisionConfig,
    )

    special = words.GEMMA_SPECIAL_TOKENS
    tokenizer = make_tokenizer(words.GEMMA_CHAT_TEMPLATE, words.GEMMA_NAMED_TOKENS, special, "<eos>")
    tokenizer.bos_token = "<bos>"
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in special}
    marks = {"bos_token_id": ids["<bos>"], "pad_token_id": ids["<pad>"]}
    config = Gemma3Config(
        text_config=gemma_text(**marks, eos_token_id=ids["<eos>"]),
        vision_config=SiglipVisionConfig(**SIGHT, vision_use_head=False),
        mm_tokens_per_image=4,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
        tie_word_embeddings=False,
    )
    ends = {**marks, "eos_token_id": [ids["<eos>"], ids["<end_of_turn>"]]}
    _save(folder, Gemma3ForConditionalGeneration(config), tokenizer, GEMMA_SEED, ends)
    Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": _SIDE, "width": _SIDE}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=words.GEMMA_CHAT_TEMPLATE,
    ).save_pretrained(folder)


def gemma_text(**marks: Any) -> Any:
    """A Gemma 3 decoder's configuration, with marks of its tokenizer."""
    from transformers import Gemma3TextConfig

    rope = {"rope_type": "default", "rope_theta": ROPE_THETA}
    own = {
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 24,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {layer: dict(rope) for layer in ("sliding_attention", "full_attention")},
    }
    sizes: dict[str, Any] = language_sizes() | own | marks
    return Gemma3TextConfig(**sizes)


def build_smolvlm(folder: Path) -> None:
    """Write a small SmolVLM in fp32: its tower, the connector, a Llama; pictures of up to two tiles by two."""
    from transformers import (
        LlamaConfig,
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    tokenizer = make_tokenizer(words.SMOL_CHAT_TEMPLATE, {}, words.SMOL_SPECIAL_TOKENS, "<end_of_utterance>")
    tokenizer.bos_token, tokenizer.pad_token = "<|im_start|>", "<|pad|>"
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in words.SMOL_SPECIAL_TOKENS}
    marks = {
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<end_of_utterance>"],
        "pad_token_id": ids["<|pad|>"],
    }
    sizes: dict[str, Any] = {"scale_factor": 2, "pad_token_id": ids["<|pad|>"]}
    text = LlamaConfig(**language_sizes(), **marks)
    config = SmolVLMConfig(vision_config=SIGHT, text_config=text, image_token_id=ids["<image>"], **sizes)
    _save(folder, SmolVLMForConditionalGeneration(config), tokenizer, SMOL_SEED, marks)
    tile = {"longest_edge": _SIDE}
    paces: dict[str, Any] = {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": dict(tile)}}
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(size={"longest_edge": 2 * _SIDE}, max_image_size=dict(tile)),
        video_processor=SmolVLMVideoProcessor(size=dict(tile), max_image_size=dict(tile), **paces),
        tokenizer=tokenizer,
        image_seq_len=(_SIDE // _PATCH // 2) ** 2,
        chat_template=words.SMOL_CHAT_TEMPLATE,
    ).save_pretrained(folder)


def settle_gemma(model: Any) -> None:
    """What Gemma has otherwise: norms count from one, and words are scaled by the root of the width."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight") and "vision_tower" not in name:
                weight.zero_()
        words = model.get_input_embeddings().weight
        words.div_(words.shape[1] ** 0.5)


def _save(folder: Path, model: Any, tokenizer: Any, seed: int, marks: dict[str, Any]) -> None:
    from transformers import GenerationConfig

    model = model.float().eval()
    draw(model, seed)
    quiet(model, tokenizer)
    if model.config.model_type == "gemma3":
        settle_gemma(model)
    model.generation_config = GenerationConfig(do_sample=False, **marks)
    model.save_pretrained(folder)
