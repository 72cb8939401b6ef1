"""Small models of architectures that nobody named, with random weights. In: a folder. Out: that folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers as hf

from tests.fixtures import text as words
from tests.fixtures.one_axis import SIGHT
from tests.fixtures.parts import draw, language_sizes, make_tokenizer, quiet

SIDE, PATCH = 56, 14
CHAT = words.ONEVISION_CHAT_TEMPLATE


def _tokenizer(*special: str) -> tuple[Any, dict[str, int], dict[str, Any]]:
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special)
    tokenizer = make_tokenizer(CHAT, {}, names)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    return tokenizer, ids, {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}


def _save(
    folder: Path, model: Any, tokenizer: Any, processor: Any, seed: int = 3, settle: Callable[[Any], None] | None = None
) -> Path:
    """`settle` changes the weights that were drawn."""
    model = model.float().eval()
    draw(model, seed)
    if settle is not None:
        settle(model)
    quiet(model, tokenizer)
    model.generation_config = hf.GenerationConfig(do_sample=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava_next(folder: Path) -> Path:
    """Tiles by the picture's shape, a row behind each line of them."""
    tokenizer, ids, marks = _tokenizer("<image>")
    pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**SIGHT),
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        image_token_index=ids["<image>"],
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
    )
    processor = hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=pinpoints
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    return _save(folder, hf.LlavaNextForConditionalGeneration(config), tokenizer, processor)


def idefics3(folder: Path) -> Path:
    """Tiles with their row and column as words between them."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 3) for column in range(1, 3)]
    tokenizer, ids, marks = _tokenizer("<fake_token_around_image>", "<image>", "<global-img>", *tiles)
    config = hf.Idefics3Config(
        vision_config=hf.Idefics3VisionConfig(**SIGHT).to_dict(),
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        image_token_id=ids["<image>"],
        scale_factor=2,
    )
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessor(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}),
        tokenizer=tokenizer,
        image_seq_len=(SIDE // PATCH // 2) ** 2,
        chat_template=CHAT,
    )
    return _save(folder, hf.Idefics3ForConditionalGeneration(config), tokenizer, processor)


def _pixtral() -> tuple[Any, dict[str, int], dict[str, Any], Any]:
    """Tokenizer, ids, end tokens and tower of models with Pixtral's."""
    tokenizer, ids, marks = _tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    tokenizer.chat_template = CHAT.replace("<image>", "[IMG]")
    sight = {name: value for name, value in SIGHT.items() if name != "image_size"}
    return tokenizer, ids, marks, hf.PixtralVisionConfig(**sight, image_size=2 * SIDE)


def mistral3(folder: Path) -> Path:
    """As many rows as the picture has patches, with marks at the end of each line."""
    tokenizer, ids, marks, sight = _pixtral()
    config = hf.Mistral3Config(
        vision_config=sight,
        text_config=hf.MistralConfig(**language_sizes(), **marks, sliding_window=None),
        image_token_index=ids["[IMG]"],
        spatial_merge_size=2,
    )
    processor = hf.PixtralProcessor(
        image_processor=hf.PixtralImageProcessor(size={"longest_edge": 2 * SIDE}, patch_size=PATCH),
        tokenizer=tokenizer,
        patch_size=PATCH,
        spatial_merge_size=2,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.Mistral3ForConditionalGeneration(config), tokenizer, processor)


def idefics2(folder: Path) -> Path:
    """As many rows a picture as a resampler gives, whatever its size; its processor takes files' pictures only."""
    tokenizer, ids, marks = _tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    config = hf.Idefics2Config(
        vision_config={**SIGHT, "image_size": 2 * SIDE},
        perceiver_config={"hidden_size": 64, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 4,
                          "resampler_head_dim": 16, "num_key_value_heads": 2},
        text_config={"model_type": "mistral", **language_sizes(), **marks, "sliding_window": None},
        image_token_id=ids["<image>"],
    )  # fmt: skip
    processor = hf.Idefics2Processor(
        hf.Idefics2ImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE}, do_image_splitting=False),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=CHAT,
    )
    return _save(folder, hf.Idefics2ForConditionalGeneration(config), tokenizer, processor)


def video_llava(folder: Path) -> Path:
    """A tower for pictures and one for films; the first takes pixels under another name."""
    tokenizer, ids, marks = _tokenizer("<image>", "<video>")
    config = hf.VideoLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**SIGHT),
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-1,
    )
    size = {"shortest_edge": SIDE}
    processor = hf.VideoLlavaProcessor(
        image_processor=hf.VideoLlavaImageProcessor(size=size, crop_size={"height": SIDE, "width": SIDE}),
        video_processor=hf.VideoLlavaVideoProcessor(size=size, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    return _save(folder, hf.VideoLlavaForConditionalGeneration(config), tokenizer, processor)


def llava_siglip(folder: Path) -> Path:
    """A LLaVA with SigLIP's tower, whose pictures are resized and not cropped."""
    tokenizer, ids, marks = _tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config=hf.SiglipVisionConfig(**SIGHT, vision_use_head=False),
        text_config=hf.LlamaConfig(**language_sizes(), **marks),
        image_token_index=ids["<image>"],
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.SiglipImageProcessor(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=CHAT,
    )
    return _save(folder, hf.LlavaForConditionalGeneration(config), tokenizer, processor)


def llava_pixtral(folder: Path) -> Path:
    """A LLaVA with Pixtral's tower: as many rows as a picture has patches."""
    tokenizer, ids, marks, sight = _pixtral()
    config = hf.LlavaConfig(
        vision_config=sight,
        text_config=hf.MistralConfig(**language_sizes(), **marks, sliding_window=None),
        image_token_index=ids["[IMG]"],
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    processor = hf.PixtralProcessor(
        image_processor=hf.PixtralImageProcessor(size={"longest_edge": 2 * SIDE}, patch_size=PATCH),
        tokenizer=tokenizer,
        patch_size=PATCH,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.LlavaForConditionalGeneration(config), tokenizer, processor, seed=5)


def several_axes(folder: Path, model_type: str) -> Path:
    """A model of GLM-4V's kind: its pictures stand on three axes of positions."""
    tokenizer, ids, marks = _tokenizer("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>",
                                       "<|begin_of_video|>", "<|end_of_video|>")  # fmt: skip
    tokenizer.chat_template = CHAT.replace("<image>", "<|begin_of_image|><|image|><|end_of_image|>")
    tokenizer.chat_template = tokenizer.chat_template.replace("<video>", "<|begin_of_video|><|video|><|end_of_video|>")
    experts = {"moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2}
    several = "moe" in model_type  # of these half of a head is turned
    config = hf.AutoConfig.for_model(
        model_type,
        text_config={**language_sizes([1, 1, 2] if several else [2, 3, 3]), **marks, **(experts if several else {})},
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "image_size": SIDE,
                       "patch_size": PATCH, "out_hidden_size": 64},
        image_token_id=ids["<|image|>"], video_token_id=ids["<|video|>"],
        image_start_token_id=ids["<|begin_of_image|>"], image_end_token_id=ids["<|end_of_image|>"],
        video_start_token_id=ids["<|begin_of_video|>"], video_end_token_id=ids["<|end_of_video|>"],
    )  # fmt: skip
    sizes = {"shortest_edge": PATCH * PATCH * 4, "longest_edge": SIDE * SIDE * 4}
    processor = hf.Glm4vProcessor(
        hf.Glm4vImageProcessor(size=sizes),
        tokenizer,
        hf.Glm4vVideoProcessor(size={**sizes, "longest_edge": 32 * sizes["longest_edge"]}),
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.AutoModelForImageTextToText.from_config(config), tokenizer, processor)


_EAR = {"num_mel_bins": 16, "d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 96}


def _hearing(*special: str, token: str) -> tuple[Any, dict[str, int], dict[str, Any], Any]:
    """Tokenizer, ids, end tokens and Whisper's log-mel of models that hear."""
    tokenizer, ids, marks = _tokenizer(*special)
    tokenizer.chat_template = words.CHAT_TEMPLATE.replace("<|audio_bos|><|AUDIO|><|audio_eos|>", token)
    mel = hf.WhisperFeatureExtractor(feature_size=16, sampling_rate=16_000, hop_length=160, chunk_length=6, n_fft=400)
    return tokenizer, ids, marks, mel


def qwen2_audio(folder: Path) -> Path:
    """Whisper's tower, which looks at all of a clip, in a model without a method for its features."""
    tokenizer, ids, marks, mel = _hearing(
        "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", token="<|audio_bos|><|AUDIO|><|audio_eos|>"
    )
    config = hf.Qwen2AudioConfig(
        audio_config={**_EAR, "max_source_positions": 300},
        text_config=hf.Qwen2Config(**language_sizes(), **marks).to_dict(),
        audio_token_index=ids["<|AUDIO|>"],
    )
    processor = hf.Qwen2AudioProcessor(mel, tokenizer, chat_template=tokenizer.chat_template)
    return _save(folder, hf.Qwen2AudioForConditionalGeneration(config), tokenizer, processor)


BUILDERS = {
    builder.__name__: builder
    for builder in (llava_next, idefics2, idefics3, mistral3, video_llava, llava_siglip, llava_pixtral)
}
