"""The model that is measured: a Qwen2.5-Omni thinker of 0.5 M parameters with random weights and Brook's words.

In: an empty folder. Out: that folder, as `from_pretrained` loads it. The model is so small that the time of a step is
mostly spent around the model. Its tokenizer and processor are Brook's. It does not know what is measured.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from ...engine.loading.open import BROOK
from ...engine.runner.library import transformers

SIDE = 112  # width and height of the frames that are appended, in pixels: 16 rows for two frames

_SIZES: dict[str, dict[str, Any]] = {
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "layer_types": ["full_attention"] * 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]},
    },
    "vision_config": {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_heads": 3,
        "window_size": 56,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 64,
    },
    "audio_config": {
        "encoder_layers": 1,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "d_model": 64,
        "output_dim": 64,
    },
}
_TRAINED = ("live_trained", "splice_tokens")  # what Brook's configuration says about Brook's training


def write_small(folder: Path) -> None:
    """Write the model in float32: Brook's configuration with smaller sizes, weights as `transformers` draws them."""
    config = json.loads((BROOK / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in _TRAINED}
    for part, sizes in _SIZES.items():
        config[part] |= sizes
    torch.manual_seed(0)
    model = transformers.Qwen2_5OmniThinkerForConditionalGeneration(transformers.Qwen2_5OmniThinkerConfig(**config))
    model = model.float()
    _speak_plainly(model.lm_head.weight)
    model.save_pretrained(folder)
    for file in (*BROOK.glob("*.json"), *BROOK.glob("*.jinja")):
        if file.name != "config.json":
            shutil.copy(file, folder)


@torch.no_grad()
def _speak_plainly(head: torch.Tensor) -> None:
    """Zero the output rows of tokens that end a reply or leave a character open: a reply that is timed must go on."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(BROOK)
    for token in range(len(head)):
        piece = tokenizer.decode([token], skip_special_tokens=True)
        if not (piece and piece.isascii() and piece.isprintable()):
            head[token] = 0.0
