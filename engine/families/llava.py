"""LLaVA 1.5: images, as text out. Each image is always the same number of rows, on one axis of positions.

The processor cuts every picture to the tower's size, so pictures come in as they are (arXiv 2310.03744). An image is
encoded whole, and its rows are causal: class A.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...streams.segment import MediaSpec, Segment, SizeRule
from ..attention import NAME
from ..family import Family, FamilyData, Loaded
from ..library import transformers
from ..span import Prompt, Span
from ..template import learn_block, learn_turns, stop_ids
from .qwen_pictures import Features, PictureTowers

_LARGEST = 4096 * 4096  # pixels of a picture that is kept as it came until it is cut to size


class ImageTower(PictureTowers):
    """A vision tower that takes pictures of one size."""

    kinds = ("text", "image")

    def rows(self, segment: Segment) -> int:
        """How many rows the segment will have."""
        processor, size = self.processor, self.processor.image_processor.crop_size
        rows = (size["height"] // processor.patch_size) * (size["width"] // processor.patch_size)
        dropped = processor.vision_feature_select_strategy == "default"
        return rows + processor.num_additional_image_tokens - dropped

    @torch.inference_mode()
    def encode(self, batch: list[tuple[int, Segment]]) -> list[Span]:
        """Spans of (stream, image) pairs: one pass over all of them."""
        if not batch:
            return []
        pixels = [segment.pixels for _, segment in batch]  # pyright: ignore[reportAttributeAccessIssue] (images only)
        rows = self._encoded(self.processor.image_processor(pixels, return_tensors="pt")["pixel_values"])
        return [self._counted(segment, features) for (_, segment), features in zip(batch, rows, strict=True)]

    def _counted(self, segment: Segment, features: torch.Tensor) -> Span:
        """Rows whose positions count on one by one, as those of sound do."""
        ids = np.full(len(features), self.config.image_token_id, dtype=np.int64)
        place = (segment.seq, segment.index, "image")
        return Span(*place, ids, features, (0, 0, 0), len(features), 0, segment.start_us, segment.stop_us)

    @torch.inference_mode()
    def prompt(
        self, messages: list[dict[str, Any]], system: str | None, fps: float | None, audio_in_video: bool
    ) -> Prompt:
        """Template, processor and features exactly as `transformers` has them for a whole prompt; images are PIL images
        or arrays `(h, w, 3)`."""
        messages = self._with_system(messages, system)
        images = self._media(messages)["image"]
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = self.processor(text=[text], images=images or None, return_tensors="pt").to(self.device)
        ids = inputs["input_ids"][0]
        features: Features = []
        if images:
            features.append(("image", self.config.image_token_id, torch.cat(self._encoded(inputs["pixel_values"]))))
        return Prompt(self._laid(ids, torch.arange(len(ids)).expand(3, -1), features))

    def _encoded(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        with self.turn():
            output = self.model.get_image_features(pixels.to(self.device, self.model.dtype), return_dict=True)
        return list(output.pooler_output)


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A LLaVA 1.5 from `path`, in `dtype` on `device`; only the attention of its language model is replaced."""
    processor = transformers.AutoProcessor.from_pretrained(path)
    model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
        path,
        dtype=dtype,
        use_safetensors=True,
        attn_implementation={"": "sdpa", "text_config": NAME, "vision_config": "sdpa"},
    )
    model = model.to(device).eval()
    config, tokenizer = model.config, processor.tokenizer

    def render(messages: list[dict[str, Any]], prompt: bool) -> str:
        return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    turns = learn_turns(render, parts=True)
    before, after = learn_block(render, "image", processor.image_token, turns.wrappers["user_start"])
    turn_ids = {name: ids(text) for name, text in turns.wrappers.items()}
    start = tokenizer("")["input_ids"]  # what the tokenizer sets before a whole prompt
    data = FamilyData(
        name=config.model_type,
        model=str(path),
        spec=MediaSpec(image=SizeRule(1, 1, _LARGEST)),
        turn_ids=turn_ids,
        block_ids={"image": (ids(before), ids(after))},
        system_ids=([*start, *ids(turns.system[0])], ids(turns.system[1])),
        default_system_ids=[*start, *ids(turns.default_system)],
        stop_ids=stop_ids(model.generation_config, tokenizer, turn_ids["assistant_end"]),
        classes={"image": "A"},
        per_second=0.0,
        axes=1,
        max_positions=config.text_config.max_position_embeddings,
        vocabulary=config.text_config.vocab_size,
    )
    sight = model.model.vision_tower
    tower = ImageTower(model.model, processor, getattr(sight, "vision_model", sight).encoder.layers)
    return Loaded(Family(data, tokenizer), tower, model.model.language_model, model.lm_head, config.text_config)
