"""Small checkpoints of architectures that are refused: of most no more than what a refusal reads. In: a folder. Out:
that folder."""

from __future__ import annotations

import re
import string
from functools import partial
from pathlib import Path
from typing import Any

import transformers as hf

from tests.engine.tried import CHAT, PATCH, SIDE, _save
from tests.fixtures import text as words
from tests.fixtures.one_axis import SIGHT
from tests.fixtures.parts import language_sizes

from .hearing import ENDS, tokenizer_of
from .suite import Builder


def named(model_type: str) -> Builder:
    """A configuration alone, which says enough."""
    return partial(_named, model_type)


def _named(model_type: str, folder: Path) -> Path:
    hf.AutoConfig.for_model(model_type).save_pretrained(folder)
    return folder


def _unweighed(folder: Path, config: Any, processor: Any) -> Path:
    """A checkpoint without weights: it is refused before they are read."""
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _seeing(
    mark: str = "<image>", *special: str, named: dict[str, str] | None = None
) -> tuple[Any, dict[str, int], dict[str, Any]]:
    tokenizer, ids, marks = tokenizer_of(mark, *special, named=named)
    tokenizer.chat_template = CHAT.replace("<image>", mark)
    return tokenizer, ids, marks


def with_sound(mark: str) -> str:
    """The template with a mark for each sound, before the words."""
    words = "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    sound = "{% for content in message['content'] | selectattr('type', 'equalto', 'audio') %}" + mark + "{% endfor %}"
    return CHAT.replace(words, sound + words)


def _siglip() -> Any:
    return hf.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})


def gemma4(folder: Path, **text: Any) -> Path:
    """Layers that see all rows have other heads than those that see a window, and a picture's rows see one another in
    the latter only. Small ones also have inputs to each layer by the ids of words, and layers with others' keys."""
    hf.Gemma4Config(text_config=text).save_pretrained(folder)
    return folder


def gemma4_large(folder: Path) -> Path:
    return gemma4(folder, hidden_size_per_layer_input=0)


def phi4_multimodal(folder: Path) -> Path:
    """One configuration for its decoder and its towers. Its rows of sound are others beside a picture than without."""
    tokenizer, ids, marks = _seeing(
        "<|image|>", "<|audio|>", named={"image_token": "<|image|>", "audio_token": "<|audio|>"}
    )
    tokenizer.chat_template = with_sound("<|audio|>").replace("<image>", "<|image|>")
    config = hf.Phi4MultimodalConfig(
        **language_sizes(), **marks,
        vision_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
                       "image_size": 448, "crop_size": 448, "image_token_id": ids["<|image|>"]},
        audio_config={"hidden_size": 32, "num_blocks": 2, "num_attention_heads": 2, "intermediate_size": 64,
                      "ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32, "nemo_conv_channels": 32,
                      "audio_token_id": ids["<|audio|>"]},
    )  # fmt: skip
    processor = hf.Phi4MultimodalProcessor(
        hf.Phi4MultimodalImageProcessor(dynamic_hd=1),
        hf.Phi4MultimodalFeatureExtractor(),
        tokenizer,
    )
    return _save(folder, hf.Phi4MultimodalForCausalLM(config), tokenizer, processor, seed=5)


def kyutai_speech_to_text(folder: Path) -> Path:
    """Each of its rows is a word and a moment of sound at once: no place for sound in a text."""
    tokenizer, _, marks = tokenizer_of("<sound>")
    sizes = language_sizes() | {"num_key_value_heads": 4, "ffn_dim": 128}
    sizes.pop("intermediate_size")
    codec = {"model_type": "mimi", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16,
             "num_key_value_heads": 2, "intermediate_size": 32, "num_filters": 2, "codebook_size": 8, "codebook_dim": 4,
             "vector_quantization_hidden_dimension": 4, "num_quantizers": 2, "num_semantic_quantizers": 1,
             "upsample_groups": 32}  # fmt: skip
    config = hf.KyutaiSpeechToTextConfig(**sizes, **marks, codec_config=codec, num_codebooks=2, codebook_vocab_size=9,
                                         audio_bos_token_id=8, audio_pad_token_id=1151, bos_token_id=1)  # fmt: skip
    processor = hf.KyutaiSpeechToTextProcessor(hf.KyutaiSpeechToTextFeatureExtractor(), tokenizer)
    return _save(folder, hf.KyutaiSpeechToTextForConditionalGeneration(config), tokenizer, processor)


def git(folder: Path) -> Path:
    """The rows of a picture stand before all words and see one another; its attention is a class of its own."""
    tokenizer, _, marks = _seeing()
    config = hf.GitConfig(vision_config={**SIGHT}, vocab_size=1152, hidden_size=64, num_hidden_layers=1,
                          num_attention_heads=4, intermediate_size=96, **marks)  # fmt: skip
    return _save(folder, hf.GitForCausalLM(config), tokenizer, hf.GitProcessor(hf.CLIPImageProcessor(), tokenizer))


def blip2(folder: Path) -> Path:
    """Its processor lays pictures before the whole text, wherever they stand in the conversation."""
    tokenizer, ids, marks = _seeing()
    config = hf.Blip2Config(
        vision_config={**SIGHT},
        qformer_config={"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 96,
                        "encoder_hidden_size": SIGHT["hidden_size"], "cross_attention_frequency": 1},
        text_config={"model_type": "llama", **language_sizes(), **marks},
        image_token_index=ids["<image>"], num_query_tokens=4,
    )  # fmt: skip
    processor = hf.Blip2Processor(
        hf.BlipImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer, num_query_tokens=4
    )
    return _save(folder, hf.Blip2ForConditionalGeneration(config), tokenizer, processor)


def instructblip(folder: Path) -> Path:
    """The same; and its pictures are seen by the words that are asked about them."""
    tokenizer, ids, marks = _seeing()
    config = hf.InstructBlipConfig(
        vision_config={**SIGHT},
        qformer_config={"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 96,
                        "encoder_hidden_size": SIGHT["hidden_size"], "cross_attention_frequency": 1},
        text_config={"model_type": "llama", **language_sizes(), **marks},
        image_token_index=ids["<image>"], num_query_tokens=4,
    )  # fmt: skip
    processor = hf.InstructBlipProcessor(
        hf.BlipImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer, tokenizer, num_query_tokens=4
    )
    return _save(folder, hf.InstructBlipForConditionalGeneration(config), tokenizer, processor)


def chameleon(folder: Path) -> Path:
    """The library never lets words that are parts of pictures be drawn; its own head does not know that."""
    tokenizer, ids, marks = _seeing()
    parts = {f"IMGIMG{'AB'[place // 10]}{'ABCDEFGHIJ'[place % 10]}Z": 300 + place for place in range(16)}
    config = hf.ChameleonConfig(
        **language_sizes(), **marks,
        vq_config={"embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "resolution": 32, "base_channels": 32,
                   "channel_multiplier": [1, 2], "num_res_blocks": 1},
        vocabulary_map={"<image>": ids["<image>"], **parts},
    )  # fmt: skip
    sizes: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = hf.ChameleonProcessor(hf.ChameleonImageProcessor(**sizes), tokenizer, image_seq_length=256)
    return _save(folder, hf.ChameleonForConditionalGeneration(config), tokenizer, processor)


def fuyu(folder: Path) -> Path:
    """Its processor lays pictures before the whole text, as BLIP-2's does, and takes away the space that its tokenizer
    sets before theirs."""
    tokenizer = _pieces("|SPEAKER|", "|NEWLINE|", "<s>", "<0x04>")
    ids = tokenizer.get_vocab()
    sizes = {name: size for name, size in language_sizes().items() if name != "num_key_value_heads"}
    config = hf.FuyuConfig(text_config={"model_type": "persimmon", **sizes, "pad_token_id": 0,
                                        "bos_token_id": None, "eos_token_id": ids["<|im_end|>"]},
                           image_token_id=ids["|SPEAKER|"], patch_size=PATCH, image_size=SIDE)  # fmt: skip
    patches: Any = {"height": PATCH, "width": PATCH}
    images = hf.FuyuImageProcessor(size={"height": 2 * SIDE, "width": 2 * SIDE}, patch_size=patches)
    return _save(folder, hf.FuyuForCausalLM(config), tokenizer, hf.FuyuProcessor(images, tokenizer))


def _pieces(*own: str) -> Any:
    """A tokenizer of SentencePiece's kind, which sets a space before a text that begins with no control token. `own`:
    pieces of its vocabulary like words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    said = sorted({f"\u2581{word}" for word in re.findall(r"\w+", words.SENTENCES)})
    scores = [("<unk>", 0.0), *((piece, 0.0) for piece in own)]
    scores += [(piece, -5.0) for piece in said] + [(one, -10.0) for one in ("\u2581", *string.printable)]
    backend = Tokenizer(models.Unigram(scores, 0, False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.add_tokens([AddedToken(end, special=True, normalized=False) for end in ENDS])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<|im_end|>",
        chat_template=CHAT.replace("<image>", own[0]),
    )  # fmt: skip


def kosmos2(folder: Path) -> Path:
    """Its processor has no token for a picture: it takes text and pictures in a list."""
    tokenizer, _, marks = _seeing("<image>", "</image>")
    config = hf.Kosmos2Config(
        text_config={"vocab_size": 1152, "embed_dim": 32, "layers": 1, "ffn_dim": 64, "attention_heads": 2, **marks},
        vision_config={**SIGHT}, latent_query_num=4,
    )  # fmt: skip
    return _save(
        folder,
        hf.Kosmos2ForConditionalGeneration(config),
        tokenizer,
        hf.Kosmos2Processor(hf.CLIPImageProcessor(), tokenizer),
    )


def emu3(folder: Path) -> Path:
    """Its processor begins every text, and so every picture that comes alone, with the token that begins a prompt."""
    tokens = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>", "image_wrapper_token": "<wrap>",
              "eof_token": "<eof>"}  # fmt: skip
    tokenizer, ids, marks = _seeing(*tokens.values(), named=tokens)
    tokenizer.bos_token = "<|endoftext|>"
    config = hf.Emu3Config(
        vq_config={"codebook_size": 16, "embed_dim": 4, "latent_channels": 4, "base_channels": 32, "hidden_size": 32,
                   "channel_multiplier": [1, 1, 1, 1], "num_res_blocks": 1},
        text_config={**language_sizes(), **marks},
        vocabulary_map={"<image>": ids["<image>"], "<|extra_200|>": 290,
                        **{f"<|visual token {place:06d}|>": 300 + place for place in range(16)}},
    )  # fmt: skip
    processor = hf.Emu3Processor(
        hf.Emu3ImageProcessor(min_pixels=32 * 32, max_pixels=64 * 64), tokenizer, chat_template=CHAT
    )
    return _save(folder, hf.Emu3ForConditionalGeneration(config), tokenizer, processor)
