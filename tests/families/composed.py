"""LLaVA put together from any tower and any decoder that `transformers` composes by configuration: small, with random
weights. In: the names of both, a folder. Out: that folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import transformers

from tests.engine.tried import CHAT, PATCH, SIDE, _save, _tokenizer
from tests.fixtures.one_axis import SIGHT
from tests.fixtures.parts import language_sizes

SQUARE = {"height": SIDE, "width": SIDE}
_SHARED: dict[str, Any] = {name: value for name, value in SIGHT.items() if name != "intermediate_size"}

hf: Any = transformers  # configurations are taken from dicts, whose values have several types


class Sight(NamedTuple):
    """A tower. `classes`: how many rows before those of patches it has; the processor drops the first of them."""

    make: Callable[[], Any]
    classes: int = 0


SIGHTS: dict[str, Sight] = {
    "clip": Sight(lambda: hf.CLIPVisionConfig(**SIGHT), 1),
    "siglip": Sight(lambda: hf.SiglipVisionConfig(**SIGHT, vision_use_head=False)),
    "pixtral": Sight(lambda: hf.PixtralVisionConfig(**SIGHT | {"image_size": 2 * SIDE})),
    "dinov2": Sight(lambda: hf.Dinov2Config(**_SHARED, mlp_ratio=2), 1),
    "dinov2_with_registers": Sight(
        lambda: hf.Dinov2WithRegistersConfig(**_SHARED, mlp_ratio=2, num_register_tokens=2), 3
    ),
    "dinov3_vit": Sight(lambda: hf.DINOv3ViTConfig(**SIGHT, num_register_tokens=2), 3),
    "vit": Sight(lambda: hf.ViTConfig(**SIGHT), 1),
    "aimv2": Sight(lambda: hf.Aimv2VisionConfig(**SIGHT)),
    "mlcd": Sight(lambda: hf.MLCDVisionConfig(**SIGHT, num_key_value_groups=1), 1),
    "siglip2": Sight(lambda: hf.Siglip2VisionConfig(**_SHARED | {"intermediate_size": 96})),
    "data2vec": Sight(lambda: hf.Data2VecVisionConfig(**SIGHT), 1),
    "internvl": Sight(lambda: hf.InternVLVisionConfig(**SIGHT), 1),
}
_PLAIN = {name: value for name, value in language_sizes().items() if name != "rope_parameters"}
_WHOLE_HEADS = {name: value for name, value in _PLAIN.items() if name != "num_key_value_heads"}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 80}
TEXTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "llama": lambda marks: hf.LlamaConfig(**language_sizes(), **marks),
    "qwen2": lambda marks: hf.Qwen2Config(**language_sizes(), **marks),
    "qwen3": lambda marks: hf.Qwen3Config(**language_sizes(), **marks, head_dim=24),
    "qwen3_moe": lambda marks: hf.Qwen3MoeConfig(**language_sizes(), **marks, **_EXPERTS, head_dim=16),
    "mistral": lambda marks: hf.MistralConfig(**language_sizes(), **marks, sliding_window=None),
    "mistral, a window": lambda marks: hf.MistralConfig(**language_sizes(), **marks, sliding_window=8),
    "ministral": lambda marks: hf.MinistralConfig(**language_sizes(), **marks, head_dim=16, sliding_window=8),
    "mixtral": lambda marks: hf.MixtralConfig(**language_sizes(), **marks, num_local_experts=4),
    "phi3": lambda marks: hf.Phi3Config(**language_sizes(), **marks),
    "phi": lambda marks: hf.PhiConfig(**language_sizes(), **marks),
    "olmo2": lambda marks: hf.Olmo2Config(**language_sizes(), **marks),
    "olmo3": lambda marks: hf.Olmo3Config(**language_sizes(), **marks, sliding_window=8),
    "gemma": lambda marks: hf.GemmaConfig(**language_sizes(), **marks, head_dim=16),
    "gemma2": lambda marks: hf.Gemma2Config(**language_sizes(), **marks, head_dim=16, sliding_window=8),
    "gemma3_text": lambda marks: hf.Gemma3TextConfig(**_PLAIN, **marks, head_dim=16, sliding_window=8),
    "granite": lambda marks: hf.GraniteConfig(
        **language_sizes(), **marks, attention_multiplier=0.2, embedding_multiplier=2.0, residual_multiplier=0.5
    ),
    "cohere": lambda marks: hf.CohereConfig(**language_sizes(), **marks),
    "cohere2": lambda marks: hf.Cohere2Config(**language_sizes(), **marks, sliding_window=8),
    "glm4": lambda marks: hf.Glm4Config(**language_sizes(), **marks, head_dim=16),
    "smollm3": lambda marks: hf.SmolLM3Config(**language_sizes(), **marks),
    "stablelm": lambda marks: hf.StableLmConfig(**language_sizes(), **marks),
    "starcoder2": lambda marks: hf.Starcoder2Config(**language_sizes(), **marks),
    "gpt_neox": lambda marks: hf.GPTNeoXConfig(**_WHOLE_HEADS, **marks),
    "exaone4": lambda marks: hf.Exaone4Config(**language_sizes(), **marks, sliding_window=8, layer_types=_MIXED),
    "gpt_oss": lambda marks: hf.GptOssConfig(**_PLAIN, **marks, head_dim=16, num_local_experts=4, sliding_window=8),
    "lfm2": lambda marks: hf.Lfm2Config(**language_sizes(), **marks, layer_types=["conv", "full_attention", "conv"]),
    "qwen3_next": lambda marks: hf.Qwen3NextConfig(
        **language_sizes(),
        **marks,
        **_EXPERTS,
        head_dim=16,
        shared_expert_intermediate_size=32,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
    "llama4_text": lambda marks: hf.Llama4TextConfig(
        **_PLAIN, **marks, head_dim=16, num_local_experts=2, intermediate_size_mlp=96, attention_chunk_size=32
    ),
}


def compose(folder: Path, sight: str, text: str) -> Path:
    """A LLaVA with this tower and this decoder."""
    tokenizer, ids, marks = _tokenizer("<image>")
    tower, classes = SIGHTS[sight]
    config = hf.LlavaConfig(
        vision_config=tower(),
        text_config=TEXTS[text](marks),
        image_token_index=ids["<image>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default" if classes else "full",
    )
    images: Any = hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    make: Any = hf.LlavaProcessor
    more: dict[str, Any] = {
        "vision_feature_select_strategy": "default" if classes else "full",
        "num_additional_image_tokens": classes,
    }
    if sight == "pixtral":
        images = hf.PixtralImageProcessor(size={"longest_edge": 2 * SIDE}, patch_size=PATCH)
        tokenizer.add_tokens(["[IMG_BREAK]", "[IMG_END]"], special_tokens=True)
        make = hf.PixtralProcessor
        more = {"spatial_merge_size": 1, "image_token": "<image>"}
    processor = make(image_processor=images, tokenizer=tokenizer, patch_size=PATCH, chat_template=CHAT, **more)
    return _save(folder, hf.LlavaForConditionalGeneration(config), tokenizer, processor)


# What is refused, with words of the reason; every other pair of a row of the two lists is right.
REFUSED: dict[tuple[str, str], str] = {
    ("siglip2", "qwen2"): "missing 2 required positional arguments: 'pixel_attention_mask' and 'spatial_shapes'",
    ("clip", "gpt_oss"): "its logits over pages differ from the library's by",
    ("clip", "stablelm"): "expected layers that hand on to attention what is beside the rows, got one that does not",
}
PAIRS = [*((sight, "qwen2") for sight in SIGHTS), *(("clip", text) for text in TEXTS if text != "qwen2")]
PAIRS += [("siglip", "mistral"), ("pixtral", "olmo2"), ("dinov2", "phi3"), ("dinov3_vit", "gemma2"), ("vit", "qwen3")]
SERVED = [pair for pair in PAIRS if pair not in REFUSED]
