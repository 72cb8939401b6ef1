"""What the small models of recipe.py have in common: sizes, tokenizer, weights. In: a seed, words. Out: plain
configuration, a tokenizer, a model whose weights are drawn. It does not know which models there are.
"""

from __future__ import annotations

import json
import math
from typing import Any

from . import text as words

VOCAB_ROWS = 1152  # rows of the embedding; the tokenizer has fewer entries, as in the large models
MAX_POSITIONS = 32_768
ROPE_THETA = 40.0
LOGIT_GAIN = 4.0


def language_sizes(mrope_section: list[int] | None = None) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": ROPE_THETA}
    if mrope_section is not None:
        rope["mrope_section"] = mrope_section
    return {
        "vocab_size": VOCAB_ROWS,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_POSITIONS,
        "rope_parameters": rope,
        "tie_word_embeddings": False,
    }


def ending(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "do_sample": False,
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
    }


def make_tokenizer(
    chat_template: str,
    named: dict[str, str],
    special: tuple[str, ...] = words.SPECIAL_TOKENS,
    end: str = "<|im_end|>",
) -> Any:
    """A byte-level BPE tokenizer of Qwen's kind, trained on `text.SENTENCES`; training is deterministic."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer()
    trainee = Tokenizer(models.BPE())
    trainee.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    trainee.train_from_iterator(
        words.SENTENCES.splitlines(),
        trainers.BpeTrainer(
            vocab_size=VOCAB_ROWS - 64,
            min_frequency=1,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    trained = json.loads(trainee.to_str())["model"]
    vocab: dict[str, int] = dict(trained["vocab"])
    for token in special:
        vocab[token] = len(vocab)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=[tuple(pair) for pair in trained["merges"]],  # pyright: ignore[reportArgumentType] (pairs, since v5)
        eos_token=end,
        model_max_length=MAX_POSITIONS,
        chat_template=chat_template,
        extra_special_tokens=named,
    )
    tokenizer.add_tokens(list(special), special_tokens=True)
    return tokenizer


# Gains over 1/sqrt(inputs), by the end of a weight's name; the first that fits counts.
_GAINS: tuple[tuple[str, float], ...] = (
    ("language_model.embed_tokens.weight", 0.0),
    ("model.embed_tokens.weight", 0.0),
    ("lm_head.weight", LOGIT_GAIN),
    ("self_attn.q_proj.weight", 1.9),
    ("self_attn.k_proj.weight", 1.9),
    ("self_attn.v_proj.weight", 1.5),
    ("self_attn.o_proj.weight", 1.5),
    ("merger.mlp.0.weight", 1.0),
    ("merger.mlp.2.weight", 1.9),
    ("audio_tower.proj.weight", 1.2),
)


def draw(model: Any, seed: int) -> None:
    """Fill every weight from one seeded generator: matrices by their inputs and gain, norms one, biases small."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("embed_tokens.weight"):
                weight.normal_(generator=generator)
            elif weight.dim() >= 2:
                gain = next((g for end, g in _GAINS if name.endswith(end)), 1.2)
                inputs = weight.shape[-1] if "experts" in name else weight[0].numel()
                weight.normal_(std=gain / math.sqrt(inputs), generator=generator)
            elif name.endswith(".bias"):
                weight.normal_(std=0.1, generator=generator)
            else:
                weight.fill_(1.0)


def quiet(model: Any, tokenizer: Any) -> None:
    """Zero the output rows of tokens that a greedy reply shall never hold: special, raw bytes, padding."""
    import torch

    special = set(tokenizer.added_tokens_decoder)
    with torch.no_grad():
        for token in range(VOCAB_ROWS):
            piece = tokenizer.decode([token]) if token < len(tokenizer) else ""
            if token in special or not piece or not piece.isascii() or not piece.isprintable():
                model.lm_head.weight[token] = 0.0
