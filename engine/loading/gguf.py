"""A text model out of a GGUF file, as `transformers` saves models. In: such a file. Out: a folder with bfloat16 weights
and the tokenizer. It needs the packages `gguf` and `accelerate`, which nothing else here does.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import pre_tokenizers

from ..runner.library import transformers


def save(file: Path, name: str, into: Path) -> None:
    """Save the Llama in `file`, whose tokenizer is that of SmolLM, in the folder `into`; `name` is what it is called.

    Raises what `transformers` raises, ImportError above all.
    """
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    dense = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16, quantization_config=dense)
    model.config._name_or_path = name
    model.save_pretrained(into)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    # The file's `tokenizer.ggml.pre` is "smollm": digits one by one, then as GPT-2 does. The reader only knows GPT-2.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(into)
