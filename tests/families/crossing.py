"""Small models whose words read media by cross-attention, with random weights: Whisper and Llama 3.2 Vision. In: a
folder. Out: that folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import CHAT, _save
from tests.fixtures.parts import VOCAB_ROWS, draw, language_sizes, make_tokenizer, quiet

LANGUAGES = ("en", "de", "fr")
_MARKS = ("<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES), "<|translate|>",
          "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")  # fmt: skip


def whisper(folder: Path, languages: bool = True) -> Path:
    """With fewer rows than the real one: its sounds have at most two seconds. Without `languages`: an English one."""
    plain = make_tokenizer("", {}, ())
    vocab = {token: id for token, id in plain.get_vocab().items() if id < VOCAB_ROWS - 64}
    merges = [tuple(pair) for pair in json.loads(plain.backend_tokenizer.to_str())["model"]["merges"]]
    tokenizer = hf.WhisperTokenizer(vocab=vocab, merges=merges)
    marks = _MARKS if languages else tuple(mark for mark in _MARKS if mark[2:-2] not in (*LANGUAGES, "translate"))
    tokenizer.add_tokens([hf.AddedToken(mark, special=True) for mark in marks], special_tokens=True)
    ids: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(name) for name in marks}
    config: Any = hf.WhisperConfig(
        vocab_size=VOCAB_ROWS, d_model=64, encoder_layers=2, encoder_attention_heads=2, decoder_layers=3,
        decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96, max_source_positions=100,
        max_target_positions=64, num_mel_bins=16, decoder_start_token_id=ids["<|startoftranscript|>"],
        eos_token_id=ids["<|endoftext|>"], bos_token_id=ids["<|endoftext|>"], pad_token_id=ids["<|endoftext|>"],
        suppress_tokens=None, begin_suppress_tokens=None, tie_word_embeddings=False,
    )  # fmt: skip
    model = hf.WhisperForConditionalGeneration(config).float().eval()
    draw(model, 3)
    quiet(model, tokenizer)
    told: dict[str, Any] = {
        "decoder_start_token_id": config.decoder_start_token_id, "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id, "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"], "is_multilingual": languages, "return_timestamps": False,
        "suppress_tokens": [5, 6, 7], "begin_suppress_tokens": [220, ids["<|endoftext|>"]], "max_length": 64,
    }  # fmt: skip
    if languages:
        told["lang_to_id"] = {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES}
        told["task_to_id"] = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    model.generation_config = hf.GenerationConfig(**told)
    model.save_pretrained(folder)
    ear = hf.WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    hf.WhisperProcessor(ear, tokenizer).save_pretrained(folder)
    return folder


def mllama(folder: Path) -> Path:
    """Two of its five layers read pictures, of up to four tiles of 5 rows."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|image|>")
    tokenizer = make_tokenizer(CHAT.replace("<image>", "<|image|>"), {"image_token": "<|image|>"}, names)
    tokenizer.bos_token = "<|begin_of_text|>"
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    text = language_sizes() | {
        "num_hidden_layers": 5, "cross_attention_layers": [1, 3], "pad_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"], "bos_token_id": ids["<|begin_of_text|>"],
    }  # fmt: skip
    config: Any = hf.MllamaConfig(
        vision_config={"hidden_size": 32, "attention_heads": 2, "num_hidden_layers": 3, "num_global_layers": 1,
                       "intermediate_size": 48, "image_size": 28, "patch_size": 14, "max_num_tiles": 4,
                       "vision_output_dim": 96, "intermediate_layers_indices": [0, 1],
                       "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]},
        text_config=text, image_token_index=ids["<|image|>"],
    )  # fmt: skip
    processor = hf.MllamaProcessor(
        hf.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4),
        tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _save(folder, hf.MllamaForConditionalGeneration(config), tokenizer, processor)


CROSSING = {"mllama": mllama, "whisper": whisper}
