"""Small models with random weights, built from their configurations and saved as users' models are saved.

In: a folder. Out: that folder with weights, configuration, tokenizer and processor files, so that `from_pretrained`
loads it through the code that loads every model. It does not know the engine, and nothing is downloaded.

The weights are drawn from fixed seeds and scaled so that the model *sees*: attention is sharp, the towers' rows are as
large as text embeddings, rotary frequencies are high enough that a shift by one position matters, and greedy replies
vary. Rows of the output layer that belong to special tokens, raw bytes and padding are zero, so greedy replies are
printable and do not end by themselves.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import one_axis, parts
from . import text as words
from .parts import MAX_POSITIONS, draw, ending, language_sizes, make_tokenizer, quiet

OMNI_SEED = 22
QWEN3_OMNI_SEED = 37
TEXT_SEED = 14
QWEN2_VL_SEED = 10
QWEN2_5_VL_SEED = 13
QWEN3_VL_SEED = 22
QWEN3_SEED = 14
LLAMA_SEED = 14
GEMMA3_TEXT_SEED = 14


def model_path(name: str) -> Path:
    """The folder of the model `name`, a key of `_BUILDERS`; built at the first call, then found in the cache.

    The cache is `$PENSTOCK_CACHE` or `~/.cache/penstock/fixtures`; the folder's name carries a hash of this recipe and
    of the library versions it was built with. Two processes that build at once are safe: the last step is a rename.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model name: expected one of {sorted(_BUILDERS)}, got {name!r}")
    root = Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock" / "fixtures")
    folder = root / f"{name}-{_recipe_hash()}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        _BUILDERS[name](draft)
        draft.chmod(0o755)
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first: its result is the same
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def build_omni(folder: Path) -> None:
    """Write a small Qwen2.5-Omni thinker in fp32: vision tower, audio tower, language model, processor."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    model = Qwen2_5OmniThinkerForConditionalGeneration
    _build_omni(folder, "Qwen2_5OmniProcessor", Qwen2_5OmniThinkerConfig, model, _thinker, OMNI_SEED)


def build_qwen3_omni(folder: Path) -> None:
    """Write a small Qwen3-Omni thinker in fp32: vision tower with features for the decoder's first layer, audio tower,
    a language model of experts, processor."""
    from transformers import Qwen3OmniMoeThinkerConfig, Qwen3OmniMoeThinkerForConditionalGeneration

    model = Qwen3OmniMoeThinkerForConditionalGeneration
    _build_omni(folder, "Qwen3OmniMoeProcessor", Qwen3OmniMoeThinkerConfig, model, _thinker3, QWEN3_OMNI_SEED)


def _build_omni(
    folder: Path,
    processor: str,
    config: Any,
    model: Any,
    sizes: Callable[[dict[str, int]], dict[str, Any]],
    seed: int,
) -> None:
    import transformers
    from transformers import GenerationConfig, Qwen2VLImageProcessor, Qwen2VLVideoProcessor, WhisperFeatureExtractor

    tokenizer = make_tokenizer(words.CHAT_TEMPLATE, words.NAMED_TOKENS)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in words.SPECIAL_TOKENS}
    made = model(config(**sizes(ids), user_token_id=tokenizer.convert_tokens_to_ids("user"))).float().eval()
    draw(made, seed)
    quiet(made, tokenizer)
    made.generation_config = GenerationConfig(**ending(ids))
    made.save_pretrained(folder)
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    # Of the places where a size may stand only the tokenizer's goes before the processor's own default for videos.
    tokenizer.init_kwargs["size"] = dict(pixels)
    getattr(transformers, processor)(
        image_processor=Qwen2VLImageProcessor(size=dict(pixels)),
        video_processor=Qwen2VLVideoProcessor(size=dict(pixels), cap_pixels_per_frame=False),
        # The large models' extractor pads to 300 s; 30 s keeps tests quick and changes no value.
        feature_extractor=WhisperFeatureExtractor(feature_size=128, chunk_length=30, return_attention_mask=True),
        tokenizer=tokenizer,
        chat_template=words.CHAT_TEMPLATE,
    ).save_pretrained(folder)


def build_qwen2_vl(folder: Path) -> None:
    """Write a small Qwen2-VL in fp32: vision tower, language model, processor."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision = {"depth": 2, "embed_dim": 48, "hidden_size": 64, "num_heads": 3, "mlp_ratio": 2}
    _build_vl(folder, "Qwen2VLProcessor", Qwen2VLConfig, Qwen2VLForConditionalGeneration, vision, QWEN2_VL_SEED)


def build_qwen2_5_vl(folder: Path) -> None:
    """Write a small Qwen2.5-VL in fp32, one block of its vision tower windowed, one full."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_heads": 3,
        "window_size": 56,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 4,
    }
    model = Qwen2_5_VLForConditionalGeneration
    _build_vl(folder, "Qwen2_5_VLProcessor", Qwen2_5_VLConfig, model, vision, QWEN2_5_VL_SEED)


def build_qwen3_vl(folder: Path) -> None:
    """Write a small Qwen3-VL in fp32, which gives features for its decoder's first layer too."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_heads": 3,
        "patch_size": 14,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    model = Qwen3VLForConditionalGeneration
    _build_vl(folder, "Qwen3VLProcessor", Qwen3VLConfig, model, vision, QWEN3_VL_SEED)


def _build_vl(folder: Path, processor: str, config: Any, model: Any, vision: dict[str, Any], seed: int) -> None:
    import transformers
    from transformers import GenerationConfig, Qwen2VLImageProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

    tokenizer = make_tokenizer(words.VL_CHAT_TEMPLATE, {}, words.VL_SPECIAL_TOKENS)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in words.VL_SPECIAL_TOKENS}
    text = language_sizes(mrope_section=[2, 3, 3]) | {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"]}
    timed = processor == "Qwen3VLProcessor"
    if timed:
        text |= {"head_dim": 16}
    made = model(
        config(
            text_config=text,
            vision_config=vision,
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
        )
    )
    made = made.float().eval()
    draw(made, seed)
    quiet(made, tokenizer)
    made.generation_config = GenerationConfig(**ending(ids))
    made.save_pretrained(folder)
    sizes = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    videos = Qwen2VLVideoProcessor(size=dict(sizes), cap_pixels_per_frame=False)
    if timed:  # the budget of a whole video
        budget = {"shortest_edge": 2 * 56 * 56, "longest_edge": 64 * 112 * 112}
        videos = Qwen3VLVideoProcessor(patch_size=14, size=budget, max_video_tokens=16, cap_pixels_per_frame=False)
    getattr(transformers, processor)(
        image_processor=Qwen2VLImageProcessor(size=dict(sizes)),
        video_processor=videos,
        tokenizer=tokenizer,
        chat_template=words.VL_CHAT_TEMPLATE,
    ).save_pretrained(folder)


def build_text(folder: Path) -> None:
    """Write a small text Qwen2 in fp32 with its tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer(words.TEXT_CHAT_TEMPLATE, {})
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in words.SPECIAL_TOKENS}
    config = Qwen2Config(**language_sizes(), eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"])
    _save_text(folder, Qwen2ForCausalLM(config), tokenizer, TEXT_SEED, ending(ids))


def build_qwen3(folder: Path) -> None:
    """Write a small text Qwen3 (norms on queries and keys, heads wider than hidden / heads) in fp32."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tokenizer(words.TEXT_CHAT_TEMPLATE, {})
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in words.SPECIAL_TOKENS}
    config = Qwen3Config(
        **language_sizes(), head_dim=24, eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"]
    )
    _save_text(folder, Qwen3ForCausalLM(config), tokenizer, QWEN3_SEED, ending(ids))


def build_llama(folder: Path) -> None:
    """Write a small text Llama with the rotary scaling and the chat template of Llama 3 in fp32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(words.LLAMA_CHAT_TEMPLATE, {}, words.LLAMA_SPECIAL_TOKENS, "<|eot_id|>")
    start, end, _, _, turn_end = tokenizer.convert_tokens_to_ids(list(words.LLAMA_SPECIAL_TOKENS))
    sizes = language_sizes()
    sizes["rope_parameters"] |= {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": MAX_POSITIONS // 8,
    }
    config = LlamaConfig(**sizes, bos_token_id=start, eos_token_id=[end, turn_end], pad_token_id=end)
    endings = {"do_sample": False, "eos_token_id": [end, turn_end], "pad_token_id": end}
    _save_text(folder, LlamaForCausalLM(config), tokenizer, LLAMA_SEED, endings)


def build_gemma3_text(folder: Path) -> None:
    """Write a small text Gemma 3 in fp32: two layers that see a window and one that sees everything."""
    from transformers import Gemma3ForCausalLM

    tokenizer = make_tokenizer(words.TEXT_CHAT_TEMPLATE, {})
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in words.SPECIAL_TOKENS}
    marks = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"], "bos_token_id": None}
    config = one_axis.gemma_text(**marks, tie_word_embeddings=False)
    _save_text(folder, Gemma3ForCausalLM(config), tokenizer, GEMMA3_TEXT_SEED, ending(ids))


def _save_text(folder: Path, model: Any, tokenizer: Any, seed: int, endings: dict[str, Any]) -> None:
    from transformers import GenerationConfig

    model = model.float().eval()
    draw(model, seed)
    quiet(model, tokenizer)
    if model.config.model_type == "gemma3_text":
        one_axis.settle_gemma(model)
    model.generation_config = GenerationConfig(**endings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


_BUILDERS: dict[str, Callable[[Path], None]] = {
    "omni": build_omni,
    "qwen3_omni": build_qwen3_omni,
    "qwen2_vl": build_qwen2_vl,
    "qwen2_5_vl": build_qwen2_5_vl,
    "qwen3_vl": build_qwen3_vl,
    "llava": one_axis.build_llava,
    "llava_onevision": one_axis.build_llava_onevision,
    "gemma3": one_axis.build_gemma3,
    "smolvlm": one_axis.build_smolvlm,
    "text": build_text,
    "qwen3": build_qwen3,
    "llama": build_llama,
    "gemma3_text": build_gemma3_text,
}


def _recipe_hash() -> str:
    digest = hashlib.sha256()
    for source in (Path(__file__), *(Path(str(room.__file__)) for room in (one_axis, parts, words))):
        digest.update(source.read_bytes())
    for package in ("torch", "transformers", "tokenizers"):
        digest.update(f"{package}={importlib.metadata.version(package)}\n".encode())
    return digest.hexdigest()[:16]


def _thinker(ids: dict[str, int]) -> dict[str, Any]:
    """The thinker's configuration: two vision blocks (one windowed, one full), two audio layers, three text layers."""
    return {
        "text_config": language_sizes(mrope_section=[2, 3, 3]),
        "vision_config": {
            "depth": 2,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_heads": 3,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 56,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
        },
        "audio_config": {
            "num_mel_bins": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "d_model": 64,
            "max_source_positions": 1500,
            "n_window": 100,
            "output_dim": 64,
        },
        "audio_token_index": ids["<|AUDIO|>"],
        "image_token_index": ids["<|IMAGE|>"],
        "video_token_index": ids["<|VIDEO|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_end_token_id": ids["<|audio_eos|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_end_token_id": ids["<|vision_eos|>"],
        "position_id_per_seconds": 25,
        "seconds_per_chunk": 2,
        "pad_token_id": ids["<|endoftext|>"],
    }


def _thinker3(ids: dict[str, int]) -> dict[str, Any]:
    """The configuration of Qwen3-Omni's thinker: two vision blocks, two audio layers that see 8 s, three text layers of
    four experts."""
    thinker = _thinker(ids)
    names = ("pad_token_id", "position_id_per_seconds", "audio_start_token_id")
    kept = {name: value for name, value in thinker.items() if name in names}
    text = language_sizes(mrope_section=[4, 2, 2]) | {
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 80,
    }
    vision = {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_heads": 3,
        "patch_size": 14,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    audio = {
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "d_model": 64,
        "output_dim": 64,
        "downsample_hidden_size": 8,
    }
    places = {f"{name}_token_id": ids[f"<|{name.upper()}|>"] for name in ("audio", "image", "video")}
    marks = {"vision_start_token_id": ids["<|vision_bos|>"], "vision_end_token_id": ids["<|vision_eos|>"]}
    towers = {"text_config": text, "vision_config": vision, "audio_config": audio}
    return kept | places | marks | towers | {"position_id_per_seconds": 13}
