"""Models with random weights at real shapes: `--model random:0.2b`, `random:3b`, `random:7b`.

In: the name of a preset. Out: a folder in the cache, as `from_pretrained` loads it. It is made at the first call. The
architecture is Qwen2.5-VL, whose decoder and tower most checkpoints resemble. The weights are scaled so that greedy
replies vary, and the output rows of tokens that end a reply or are no plain words are zero, so that a reply that is
timed goes on. It does not know what is measured.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import shutil
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from ...engine.loading.open import BROOK
from ...engine.runner.library import transformers
from ...errors import ModelError

PREFIX = "random:"
_SHARD_BYTES = 2 << 30
_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Shape(NamedTuple):
    """Sizes of the decoder and of the vision tower. `tied`: the output layer is the embedding."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    tower_hidden: int
    tower_inner: int
    tower_depth: int
    tower_heads: int
    tower_full: tuple[int, ...]  # its blocks that see the whole picture


# The first is of the size that a small CPU serves live. The others are those of the published checkpoints.
SHAPES = {
    "0.2b": Shape(1024, 2816, 10, 8, 2, 30_016, False, 640, 1708, 8, 8, (3, 7)),
    "3b": Shape(2048, 11_008, 36, 16, 2, 151_936, True, 1280, 3420, 32, 16, (7, 15, 23, 31)),
    "7b": Shape(3584, 18_944, 28, 28, 4, 152_064, False, 1280, 3420, 32, 16, (7, 15, 23, 31)),
}


def model_folder(model: str | None) -> str:
    """The folder of a preset, of Brook for None, or else `model` itself. ModelError for a preset that is not there."""
    if model is None:
        return str(BROOK)
    if not model.startswith(PREFIX):
        return model
    name = model.removeprefix(PREFIX)
    if name not in SHAPES:
        raise ModelError(f"--model: expected one of {', '.join(PREFIX + known for known in SHAPES)}, got {model}")
    root = Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock") / "bench"
    folder = root / f"random-{name}-{_recipe_hash()}"
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
        try:
            write(draft, SHAPES[name])
            draft.chmod(0o755)
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same result
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return str(folder)


def write(folder: Path, shape: Shape) -> None:
    """Write a model of that shape in bfloat16 into the empty folder. Memory: one shard of 2 GiB."""
    tokenizer = _tokenizer(shape.vocabulary)
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=dict(pixels)),
        video_processor=transformers.Qwen2VLVideoProcessor(size=dict(pixels), cap_pixels_per_frame=False),
        tokenizer=tokenizer,
        chat_template=_TEMPLATE,
    ).save_pretrained(folder)
    config = _config(shape, {name: tokenizer.convert_tokens_to_ids(name) for name in _SPECIAL})
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    ends = [tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>")]
    transformers.GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=ends[1]).save_pretrained(folder)
    with torch.device("meta"):
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    sizes = {name: weight.shape for name, weight in model.named_parameters()}  # of tied ones the first name only
    places: dict[str, str] = {}
    for number, shard in enumerate(_shards(sizes, _silent(tokenizer, shape.vocabulary)), 1):
        file = f"model-{number:05}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        places |= dict.fromkeys(shard, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _shards(sizes: dict[str, torch.Size], silent: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    held = 0
    for name, size in sizes.items():
        shard[name] = _draw(name, size, "lm_head.weight" not in sizes, silent, generator)
        held += shard[name].nbytes
        if held >= _SHARD_BYTES:
            yield shard
            shard, held = {}, 0
    if shard:
        yield shard


def _draw(name: str, size: torch.Size, tied: bool, silent: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One weight: matrices by the number of their inputs, norms one, biases small."""
    weight = torch.ones(size, dtype=torch.bfloat16)
    if name.endswith("embed_tokens.weight"):
        # A tied embedding that is large would make each token follow itself.
        weight.normal_(std=0.05 if tied else 1.0, generator=generator)
    elif weight.dim() >= 2:
        gain = 4.0 if name == "lm_head.weight" else 1.2
        weight.normal_(std=gain / math.sqrt(weight[0].numel()), generator=generator)
    elif name.endswith(".bias"):
        weight.normal_(std=0.1, generator=generator)
    if name == "lm_head.weight" or (tied and name.endswith("embed_tokens.weight")):
        weight[silent] = 0.0
    return weight


def _config(shape: Shape, ids: dict[str, int]) -> Any:
    head = shape.hidden // shape.heads
    temporal = head // 8
    spatial = (head // 2 - temporal) // 2
    text = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 128_000,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": [temporal, spatial, head // 2 - temporal - spatial],
        },
        "tie_word_embeddings": shape.tied,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
    }
    vision = {
        "depth": shape.tower_depth,
        "hidden_size": shape.tower_hidden,
        "intermediate_size": shape.tower_inner,
        "num_heads": shape.tower_heads,
        "out_hidden_size": shape.hidden,
        "fullatt_block_indexes": list(shape.tower_full),
        "window_size": 112,
        "tokens_per_second": 2,
    }
    return transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=shape.tied,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def _tokenizer(vocabulary: int) -> Any:
    """Brook's byte pairs, made-up words up to nearly `vocabulary` entries, and Qwen's special tokens."""
    brook = json.loads((BROOK / "tokenizer.json").read_text())
    special = {token["content"] for token in brook["added_tokens"]}
    pieces = [piece for piece in brook["model"]["vocab"] if piece not in special]
    known = set(pieces)
    letters = itertools.product(string.ascii_lowercase, repeat=4)
    words = (word for word in ("Ġ" + "".join(word) for word in letters) if word not in known)
    pieces += itertools.islice(words, max(0, vocabulary - 64 - len(pieces)))
    vocab = {piece: place for place, piece in enumerate((*pieces, *_SPECIAL))}
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=vocab,
        merges=[tuple(pair) for pair in brook["model"]["merges"]],  # pyright: ignore[reportArgumentType]
        eos_token="<|im_end|>",
        model_max_length=128_000,
        chat_template=_TEMPLATE,
    )
    tokenizer.add_tokens(list(_SPECIAL), special_tokens=True)
    return tokenizer


def _silent(tokenizer: Any, vocabulary: int) -> torch.Tensor:
    """Which tokens a greedy reply never says: special ones, bytes that are no characters, rows without a token."""
    special = set(tokenizer.added_tokens_decoder)
    pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    plain = [
        token not in special and bool(piece) and piece.isascii() and piece.isprintable()
        for token, piece in enumerate(pieces)
    ]
    return torch.tensor([not says for says in plain] + [True] * (vocabulary - len(plain)))


def _recipe_hash() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for package in ("torch", "transformers"):
        digest.update(f"{package}={importlib.metadata.version(package)}\n".encode())
    return digest.hexdigest()[:16]
