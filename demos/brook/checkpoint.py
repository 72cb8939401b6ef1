"""Brook's configuration, tokenizer and processor, as files that `from_pretrained` loads. In: a tokenizer's sentences.
Out: a model with fresh weights, or a folder. It does not know the world.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from penstock.codecs.wheels import mend_wheels

mend_wheels()  # has to run before transformers is imported
from transformers import (
    GenerationConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    WhisperFeatureExtractor,
)

from .senses import BINS, BLOCK_FRAMES, HOP, PATCH, SIDE, WINDOW
from .world import WORDS

SILENCE = "<|silence|>"
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    SILENCE,
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|vision_pad|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
)
_NAMES = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
# Qwen's template without a system prompt of its own.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif content['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif content['type'] == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN = 256
PER_SECOND = 12  # positions a second
VOCABULARY = 1536
LONGEST = 32_768


def build_tokenizer(sentences: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer of Qwen's kind, trained on `sentences`; training is deterministic."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trainee = Tokenizer(models.BPE())
    trainee.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = VOCABULARY - len(SPECIAL)
    trainee.train_from_iterator(
        sentences,
        trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False),
    )
    trained = json.loads(trainee.to_str())["model"]
    vocabulary: dict[str, int] = dict(trained["vocab"])
    for token in SPECIAL:
        vocabulary[token] = len(vocabulary)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[tuple(pair) for pair in trained["merges"]],  # pyright: ignore[reportArgumentType] (pairs, since v5)
        eos_token="<|im_end|>",
        model_max_length=LONGEST,
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens=dict(_NAMES),
    )
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    return tokenizer


def build_model(tokenizer: Any) -> Any:
    """The thinker with fresh weights, fp32."""
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    config = Qwen2_5OmniThinkerConfig(**_config(ids), user_token_id=tokenizer.convert_tokens_to_ids("user"))
    torch.manual_seed(0)
    model = Qwen2_5OmniThinkerForConditionalGeneration(config).float()
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=[ids["<|im_end|>"], ids[SILENCE], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
    )
    return model


def members(model: Any) -> tuple[Any, Any, Any]:
    """The vision tower, the audio tower and the language model, wherever this version of the library has them."""
    inner = model.model if hasattr(model.model, "visual") else model
    return inner.visual, inner.audio_tower, getattr(model.model, "language_model", model.model)


def build_processor(tokenizer: Any) -> Any:
    """Pictures of about 112 by 112 pixels, log-mel of 64 bins every 20 ms."""
    sizes = {"shortest_edge": (SIDE - 28) ** 2, "longest_edge": SIDE * SIDE}
    # Of the places where a size may stand only the tokenizer's goes before the processor's own default for videos.
    tokenizer.init_kwargs["size"] = dict(sizes)
    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(sizes)),
        video_processor=Qwen2VLVideoProcessor(size=dict(sizes), cap_pixels_per_frame=False),
        feature_extractor=WhisperFeatureExtractor(
            feature_size=BINS, hop_length=HOP, n_fft=WINDOW, chunk_length=30, return_attention_mask=True
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write everything that `from_pretrained` needs, weights in bf16."""
    import copy

    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


def _config(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "text_config": {
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": 704,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "max_position_embeddings": LONGEST,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 4, 4]},
            "tie_word_embeddings": False,
        },
        "vision_config": {
            "depth": 4,
            "hidden_size": 192,
            "intermediate_size": 448,
            "num_heads": 6,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": SIDE,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [0, 1, 2, 3],
        },
        "audio_config": {
            "num_mel_bins": BINS,
            "encoder_layers": 4,
            "encoder_attention_heads": 6,
            "encoder_ffn_dim": 576,
            "d_model": 192,
            "max_source_positions": 1500,
            "n_window": BLOCK_FRAMES // 2,
            "output_dim": HIDDEN,
        },
        "audio_token_index": ids["<|AUDIO|>"],
        "image_token_index": ids["<|IMAGE|>"],
        "video_token_index": ids["<|VIDEO|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_end_token_id": ids["<|audio_eos|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_end_token_id": ids["<|vision_eos|>"],
        "position_id_per_seconds": PER_SECOND,
        "seconds_per_chunk": 1,
        "pad_token_id": ids["<|endoftext|>"],
        "live_trained": True,  # Penstock's `format="auto"` takes `live`
        "window_rows": 320,  # twelve seconds of picture and sound: hardly a lesson is longer
        # The question of `sounds.py`; its answer is read as in "one, two and red." and "nothing."
        "transcription": {
            "question": "Which words did you hear?",
            "in_language": "Which words did you hear?",
            "languages": {"en": "English"},
            "word": rf"\b(?:{'|'.join(WORDS)})\b",
        },
        "splice_tokens": 24,  # an answer or a sentence is said whole before the next piece of media comes
    }
