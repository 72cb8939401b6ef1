"""`python checkpoint.py FOLDER`: a small Toy with random weights, with tokenizer and processor, in place of yours."""

from __future__ import annotations

import sys
from typing import Any

import tokenizers as tk
import torch
import transformers as hf
from toy_family import ToyConfig, ToyForConditionalGeneration

SIDE, PATCH = 32, 8
SPECIAL = ("<|end|>", "<|start|>", "<image>")
CHAT = """{%- for message in messages -%}<|start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == "image" %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|end|>
{% endfor %}{% if add_generation_prompt %}<|start|>assistant
{% endif %}"""


def make_tokenizer() -> hf.PreTrainedTokenizerFast:
    """Bytes, and a few words of the two sentences below."""
    bytes_and_words = tk.Tokenizer(tk.models.BPE())
    bytes_and_words.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_and_words.decoder = tk.decoders.ByteLevel()
    alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
    trainer = tk.trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bytes_and_words.train_from_iterator(["What is there? What do you see?", "There is a picture."], trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=bytes_and_words, eos_token=SPECIAL[0], pad_token=SPECIAL[0], chat_template=CHAT
    )


def main(folder: str) -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    ids: Any = tokenizer.convert_tokens_to_ids(list(SPECIAL))
    end, _, image = ids
    words = hf.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        initializer_range=0.3,
        eos_token_id=end,
    )
    sight = hf.CLIPVisionConfig(image_size=SIDE, patch_size=PATCH, num_hidden_layers=2, initializer_range=0.3)
    model = ToyForConditionalGeneration(ToyConfig(vision_config=sight, text_config=words, image_token_index=image))
    model.generation_config = hf.GenerationConfig(do_sample=False, eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=square),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=CHAT,
    ).save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
