"""Small models that hear, of architectures that nobody named, with random weights. In: a folder. Out: that one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import _save
from tests.fixtures import text as words
from tests.fixtures.parts import language_sizes, make_tokenizer

ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHUNK = 6  # seconds that a tower of Whisper's kind looks at
EAR = {"num_mel_bins": 16, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
_OPEN, _MARK, _CLOSE = "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"


def tokenizer_of(
    mark: str, *special: str, around: tuple[str, str] = ("", ""), named: dict[str, str] | None = None
) -> tuple[Any, dict[str, int], dict[str, Any]]:
    """Tokenizer, ids by token and the marks of a decoder. `mark`: what stands for a sound, `around`: what the chat
    template sets around it."""
    chat = words.CHAT_TEMPLATE.replace(_OPEN + _MARK + _CLOSE, around[0] + mark + around[1])
    names = (*ENDS, mark, *special)
    tokenizer = make_tokenizer(chat, named or {}, names)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    return tokenizer, ids, {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}


def mel_of(chunk: int = CHUNK) -> Any:
    """Whisper's log-mel."""
    return hf.WhisperFeatureExtractor(
        feature_size=EAR["num_mel_bins"], sampling_rate=16_000, hop_length=160, chunk_length=chunk, n_fft=400
    )


def qwen2_sizes(marks: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "qwen2", **language_sizes(), **marks}


def qwen3_sizes(marks: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "qwen3", **language_sizes(), **marks, "head_dim": 16}


def audioflamingo3(folder: Path) -> Path:
    """Whisper's tower over windows that its processor cuts, each of them on its own."""
    tokenizer, ids, marks = tokenizer_of("<sound>")
    config = hf.AudioFlamingo3Config(
        audio_config={**EAR, "max_source_positions": CHUNK * 50},
        text_config=qwen2_sizes(marks),
        audio_token_id=ids["<sound>"],
    )
    processor = hf.AudioFlamingo3Processor(mel_of(), tokenizer, chat_template=tokenizer.chat_template)
    return _save(folder, hf.AudioFlamingo3ForConditionalGeneration(config), tokenizer, processor)


def musicflamingo(folder: Path) -> Path:
    """The same, with time turned into each row: a window says which of its sound it is."""
    tokenizer, ids, marks = tokenizer_of("<sound>", "<|sound_bos|>", "<|sound_eos|>")
    config = hf.MusicFlamingoConfig(
        audio_config={"model_type": "audioflamingo3_encoder", **EAR, "max_source_positions": CHUNK * 50},
        text_config=qwen2_sizes(marks),
        audio_token_id=ids["<sound>"],
        audio_bos_token_id=ids["<|sound_bos|>"],
        audio_eos_token_id=ids["<|sound_eos|>"],
    )
    processor = hf.MusicFlamingoProcessor(mel_of(), tokenizer, chat_template=tokenizer.chat_template)
    return _save(folder, hf.MusicFlamingoForConditionalGeneration(config), tokenizer, processor)


def glmasr(folder: Path) -> Path:
    """A tower with rotary positions, over windows that its processor cuts."""
    tokenizer, ids, marks = tokenizer_of("<|pad|>", "<|begin_of_audio|>", "<|end_of_audio|>",
                                         around=("<|begin_of_audio|>", "<|end_of_audio|>"))  # fmt: skip
    ear = {**EAR, "hidden_size": 48, "intermediate_size": 192, "max_position_embeddings": CHUNK * 50}
    config = hf.GlmAsrConfig(
        audio_config=ear,
        text_config={"model_type": "llama", **language_sizes(), **marks},
        audio_token_id=ids["<|pad|>"],
        tie_word_embeddings=False,
    )
    processor = hf.GlmAsrProcessor(mel_of(), tokenizer, chat_template=tokenizer.chat_template)
    return _save(folder, hf.GlmAsrForConditionalGeneration(config), tokenizer, processor)


def qwen3_asr(folder: Path) -> Path:
    """A tower that looks at windows of so many seconds, at each alone."""
    named = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
    tokenizer, ids, marks = tokenizer_of("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>",
                                         around=("<|audio_start|>", "<|audio_end|>"), named=named)  # fmt: skip
    ear = {
        "num_mel_bins": 16, "d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 96,
        "output_dim": 64, "n_window": 50, "n_window_infer": 200, "downsample_hidden_size": 8,
    }  # fmt: skip
    config = hf.Qwen3ASRConfig(
        audio_config=ear,
        text_config=qwen3_sizes(marks),
        audio_token_id=ids["<|audio_pad|>"],
        **marks,
        tie_word_embeddings=False,
    )
    mel = hf.Qwen3ASRFeatureExtractor(feature_size=16, min_length=0)
    processor = hf.Qwen3ASRProcessor(mel, tokenizer, chat_template=tokenizer.chat_template)
    return _save(folder, hf.Qwen3ASRForConditionalGeneration(config), tokenizer, processor)


def fun_asr_nano(folder: Path) -> Path:
    """A tower with memories of a few frames to each side, and an adaptor that looks at all of a sound."""
    tokenizer, ids, marks = tokenizer_of("<|object_ref_start|>")
    ear = {"num_mel_bins": 16, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64,
           "num_hidden_layers": 4, "num_timestamp_prediction_layers": 1}  # fmt: skip
    config = hf.FunAsrNanoConfig(
        audio_config=ear,
        adaptor_config={"hidden_size": 64, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1,
                        "projector_hidden_size": 48},
        text_config=qwen3_sizes(marks),
        audio_token_id=ids["<|object_ref_start|>"],
        tie_word_embeddings=False,
    )  # fmt: skip
    mel = hf.FunAsrNanoFeatureExtractor(feature_size=16)
    processor = hf.FunAsrNanoProcessor(mel, tokenizer, chat_template=tokenizer.chat_template)
    return _save(folder, hf.FunAsrNanoForConditionalGeneration(config), tokenizer, processor)


def moss_transcribe_diarize(folder: Path) -> Path:
    """Whisper's tower, with the seconds as words between its rows."""
    tokenizer, ids, marks = tokenizer_of("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>",
                                         around=("<|audio_start|>", "<|audio_end|>"))  # fmt: skip
    config = hf.MossTranscribeDiarizeConfig(
        audio_config={**EAR, "max_source_positions": CHUNK * 50},
        text_config=qwen3_sizes(marks),
        audio_token_id=ids["<|audio_pad|>"],
        audio_chunk_size=CHUNK * 16_000,
        tie_word_embeddings=False,
    )
    mel = hf.MossTranscribeDiarizeFeatureExtractor(feature_size=16, chunk_length=CHUNK)
    processor = hf.MossTranscribeDiarizeProcessor(mel, tokenizer, chat_template=tokenizer.chat_template)
    return _save(folder, hf.MossTranscribeDiarizeForConditionalGeneration(config), tokenizer, processor)


def vibevoice_asr(folder: Path) -> Path:
    """Two towers of convolutions; to what one of them says the library adds noise by chance."""
    tokenizer, ids, marks = tokenizer_of("<|box_start|>", "<|object_ref_start|>", "<|object_ref_end|>",
                                         around=("<|object_ref_start|>", "<|object_ref_end|>"))  # fmt: skip
    ear = {"model_type": "vibevoice_acoustic_tokenizer_encoder", "num_filters": 4, "depths": [1] * 7}
    config = hf.VibeVoiceAsrConfig(
        acoustic_tokenizer_encoder_config={**ear, "hidden_size": 16},
        semantic_tokenizer_encoder_config={**ear, "hidden_size": 24},
        text_config=qwen2_sizes(marks),
        audio_token_id=ids["<|box_start|>"],
        audio_bos_token_id=ids["<|object_ref_start|>"],
        audio_eos_token_id=ids["<|object_ref_end|>"],
        acoustic_tokenizer_chunk_size=3200 * 15,
    )
    mel = hf.VibeVoiceAcousticTokenizerFeatureExtractor()
    processor = hf.VibeVoiceAsrProcessor(mel, tokenizer, chat_template=tokenizer.chat_template)
    return _save(folder, hf.VibeVoiceAsrForConditionalGeneration(config), tokenizer, processor)


def _granite(folder: Path, kind: str, **ear: Any) -> Path:
    tokenizer, ids, marks = tokenizer_of("<|audio|>")
    config = getattr(hf, f"{kind}Config")(
        encoder_config={"input_dim": 160, "num_layers": 2, "hidden_dim": 32, "num_heads": 2, "dim_head": 16,
                        "context_size": 20, "max_pos_emb": 32, "conv_kernel_size": 5, "output_dim": 8, **ear},
        projector_config={"model_type": "blip_2_qformer", "hidden_size": 48, "num_hidden_layers": 1,
                          "num_attention_heads": 3, "intermediate_size": 96, "cross_attention_frequency": 1,
                          "encoder_hidden_size": 32 * (1 + len(ear.get("cat_hidden_layers", ())))},
        text_config={"model_type": "granite", **language_sizes(), **marks, "attention_multiplier": 0.25},
        audio_token_index=ids["<|audio|>"],
        has_lora_adapter=False,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.GraniteSpeechProcessor(
        hf.GraniteSpeechFeatureExtractor(), tokenizer, chat_template=tokenizer.chat_template
    )
    return _save(folder, getattr(hf, f"{kind}ForConditionalGeneration")(config), tokenizer, processor)


def granite_speech(folder: Path) -> Path:
    """A conformer over blocks of frames, and a Q-Former over windows of them; its part for sound has another name."""
    return _granite(folder, "GraniteSpeech")


def granite_speech_plus(folder: Path) -> Path:
    """The same with the states of a layer between beside the last."""
    return _granite(folder, "GraniteSpeechPlus", cat_hidden_layers=[1])
