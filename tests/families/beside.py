"""Small models in which media is no rows among those of words: it is seen by layers of its own, or is something else
than pictures, frames and sound. A load says so. In: a folder. Out: that folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import PATCH, SIDE, _save, _tokenizer
from tests.families.refusals import _seeing
from tests.families.tiled import SQUARE
from tests.fixtures.one_axis import SIGHT
from tests.fixtures.parts import language_sizes
from tests.fixtures.text import TEXT_CHAT_TEMPLATE


def idefics(folder: Path) -> Path:
    """Layers between those of the decoder look at pictures."""
    tokenizer, _, marks = _tokenizer("<image>", "<fake_token_around_image>", "<end_of_utterance>")
    sizes = {name: size for name, size in language_sizes().items() if name != "num_key_value_heads"}
    config = hf.IdeficsConfig(
        **sizes, **marks,
        vision_config={"embed_dim": 48, "image_size": SIDE, "patch_size": PATCH, "num_hidden_layers": 2,
                       "num_attention_heads": 3, "intermediate_size": 96},
        perceiver_config={"use_resampler": False}, additional_vocab_size=0,
    )  # fmt: skip
    processor = hf.IdeficsProcessor(hf.IdeficsImageProcessor(image_size=SIDE), tokenizer, image_size=SIDE)
    return _save(folder, hf.IdeficsForVisionText2Text(config), tokenizer, processor)


def blip(folder: Path) -> Path:
    """Every layer of its decoder looks at the picture too."""
    tokenizer, _, marks = _seeing()
    config = hf.BlipConfig(
        vision_config={**SIGHT},
        text_config={"vocab_size": 1152, "hidden_size": 64, "encoder_hidden_size": 48, "intermediate_size": 96,
                     "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512, **marks,
                     "bos_token_id": 1, "sep_token_id": 2},
    )  # fmt: skip
    processor = hf.BlipProcessor(hf.BlipImageProcessor(size=SQUARE), tokenizer)
    hf.BlipForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def mistral4(folder: Path) -> Path:
    """Listed among multimodal models, and one of text alone: the decoder of others."""
    tokenizer, _, marks = _tokenizer()
    tokenizer.chat_template = TEXT_CHAT_TEMPLATE
    config = hf.Mistral4Config(
        **{**language_sizes(), "rope_parameters": None, "num_key_value_heads": 4}, **marks, moe_intermediate_size=32,
        n_routed_experts=4, num_experts_per_tok=2, kv_lora_rank=16, q_lora_rank=24, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=16,
    )  # fmt: skip
    model = hf.Mistral4ForCausalLM(config)
    return _save(folder, model, tokenizer, tokenizer)


def instructblipvideo(folder: Path) -> Path:
    """InstructBLIP for four frames, which its processor takes as pictures."""
    tokenizer, ids, marks = _seeing("<video>")
    config = hf.InstructBlipVideoConfig(
        vision_config={**SIGHT},
        qformer_config={"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 96,
                        "encoder_hidden_size": SIGHT["hidden_size"], "cross_attention_frequency": 1},
        text_config={"model_type": "llama", **language_sizes(), **marks},
        video_token_index=ids["<video>"], num_query_tokens=4,
    )  # fmt: skip
    processor = hf.InstructBlipVideoProcessor(
        hf.InstructBlipVideoVideoProcessor(size=SQUARE), tokenizer, tokenizer, num_query_tokens=4
    )
    return _save(folder, hf.InstructBlipVideoForConditionalGeneration(config), tokenizer, processor)


def kosmos2_5(folder: Path) -> Path:
    """Patches of a picture with their places among them, taken under a name of their own."""
    names = {"boi_token": "<image>", "eoi_token": "</image>", "image_token": "<s>"}
    tokenizer, _, marks = _seeing("<image>", "</image>", "<s>", named=names)
    config = hf.Kosmos2_5Config(
        text_config={"vocab_size": 1152, "embed_dim": 32, "layers": 1, "ffn_dim": 64, "attention_heads": 2, **marks},
        vision_config={"hidden_size": 32, "patch_embed_hidden_size": 768, "intermediate_size": 48, "head_dim": 16,
                       "num_hidden_layers": 1, "num_attention_heads": 2, "max_num_patches": 64},
        latent_query_num=4,
    )  # fmt: skip
    processor = hf.Kosmos2_5Processor(hf.Kosmos2_5ImageProcessor(max_patches=64), tokenizer, num_image_tokens=4)
    return _save(folder, hf.Kosmos2_5ForConditionalGeneration(config), tokenizer, processor)


def evolla(folder: Path) -> Path:
    """It sees proteins: words about a chain of their own letters."""
    tokenizer, _, marks = _tokenizer()
    sizes: dict[str, Any] = language_sizes()
    config = hf.EvollaConfig(
        **sizes, **marks, aligner_num_add_layers=1, resampler_depth=1, resampler_dim_head=8, resampler_heads=2,
        resampler_num_latents=4, resampler_ff_mult=2,
        protein_encoder_config={"vocab_size": 446, "hidden_size": 32, "num_hidden_layers": 1,
                                "num_attention_heads": 2, "intermediate_size": 48},
    )  # fmt: skip
    letters = ["<cls>", "<pad>", "<eos>", "<unk>", "<mask>", *"ACDEFGHIKLMNPQRSTVWY"]
    (folder / "vocab.txt").write_text("\n".join(letters))
    processor = hf.EvollaProcessor(hf.EsmTokenizer(str(folder / "vocab.txt")), tokenizer)
    return _save(folder, hf.EvollaForProteinText2Text(config), tokenizer, processor)
