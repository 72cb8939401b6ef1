"""Small models whose tokenizer is that of Mistral's own package, with random weights. In: a folder. Out: that one."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import transformers as hf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

from tests.engine.tried import _save
from tests.fixtures import text as words
from tests.fixtures.parts import VOCAB_ROWS, language_sizes

_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# By id; those between have no name.
_SPECIAL = {
    number: token
    for number, token in enumerate(
        "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] "
        "[TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] "
        "[TOOL_CONTENT]".split()
    )
} | {24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 34: "[TRANSCRIBE]"}
_ALL_SPECIAL = 40
EAR = {"num_mel_bins": 16, "hop_length": 160, "window_size": 400}


def tekken(folder: Path) -> Path:
    """`tekken.json` of a few words, with a chunk of sound of 30 s."""
    trainee = Tokenizer(models.BPE())
    trainee.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_ROWS - 64,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trainee.train_from_iterator(words.SENTENCES.splitlines(), trainer)
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    order = sorted(trainee.get_vocab().items(), key=lambda item: item[1])
    pieces = [bytes([byte]) for byte in range(256)]
    pieces += [bytes(byte_of[letter] for letter in word) for word, _ in order if len(word) > 1]
    made = {
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": piece.decode(errors="replace")}
            for rank, piece in enumerate(pieces)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": _SPECIAL.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
            for rank in range(_ALL_SPECIAL)
        ],
        "config": {"pattern": _PATTERN, "num_vocab_tokens": len(pieces), "version": "v7",
                   "default_vocab_size": len(pieces) + _ALL_SPECIAL, "default_num_special_tokens": _ALL_SPECIAL},
        "audio": {"sampling_rate": 16_000, "frame_rate": 12.5, "chunk_length_s": 30.0, "audio_encoding_config": EAR},
        "version": 1, "type": "Tekken",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tekken.json"
    file.write_text(json.dumps(made), encoding="utf-8")
    return file


def voxtral(folder: Path) -> Path:
    """Whisper's tower over 30 s at a time; its processor takes sound in a conversation alone."""
    for package in ("mistral_common", "soundfile"):
        pytest.importorskip(package, reason="the extra mistral brings it")
    tekken(folder)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder, mistral_format=True)
    config = hf.VoxtralConfig(
        audio_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
                      "num_mel_bins": 16},
        text_config={"model_type": "llama", **language_sizes(), "head_dim": 16, "eos_token_id": 2,
                     "pad_token_id": 11},
        audio_token_id=24,
    )  # fmt: skip
    ear = hf.WhisperFeatureExtractor(feature_size=16)
    spelled = convert_tekken_tokenizer(str(folder / "tekken.json"))
    return _save(folder, hf.VoxtralForConditionalGeneration(config), spelled, hf.VoxtralProcessor(ear, tokenizer))


def mistral(folder: Path) -> Path:
    """A model of text, whose checkpoint has its tokenizer in both forms."""
    spelled = convert_tekken_tokenizer(str(tekken(folder)))
    config = hf.MistralConfig(**language_sizes(), eos_token_id=2, pad_token_id=11, bos_token_id=1, sliding_window=None)
    return _save(folder, hf.MistralForCausalLM(config), spelled, spelled)
