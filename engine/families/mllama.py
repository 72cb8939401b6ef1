"""Llama 3.2 Vision (Mllama): pictures in whole prompts, text out. Each picture becomes tiles, whose rows every word
behind it reads by cross-attention, until the next pictures (arXiv 2407.21783, section 7).

In the library words that stand before all pictures see every tile of the prompt, also those that fill up; and take
nothing of it but that. So new pictures would change what is cached: class F.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ModelError
from ...streams.requests.prompt import Content, Media
from ...streams.segment import MediaSpec, RowSpec
from ..embeddings import Embeddings, EncodedPrompt, Features
from ..family import Family, FamilyData, Loaded
from ..runner.crossing import packed
from ..runner.gate import tower_pass
from ..span import Look
from ..words.template import learn
from .across import LargestPrompt, check_whole, laid_across
from .one_axis import OneAxisTowers
from .prompt import process
from .towers import open_sight


class MllamaTowers(OneAxisTowers):
    """The vision tower and the projector."""

    def __init__(self, whole: Any, processor: Any) -> None:
        vision = whole.model.vision_model
        super().__init__(whole.model, processor, [*vision.transformer.layers, *vision.global_transformer.layers])
        self.whole, self._packed = whole, packed(whole.model.language_model)

    def spec(self) -> MediaSpec:
        """No picture goes into a stream."""
        return MediaSpec()

    def taken(self) -> RowSpec:
        """None are taken: words see a picture by its tiles."""
        return RowSpec(0, {})

    @property
    def largest_prompt(self) -> LargestPrompt:
        """One picture of as many tiles as there may be."""
        size = self.processor.image_processor.size
        tiles = self.processor.image_processor.max_image_tiles
        picture = Media("image", np.zeros((size["height"], size["width"] * tiles, 3), np.uint8))
        rows = tiles * self.model.vision_model.num_patches
        return LargestPrompt(Content([picture], text=self.processor.image_token, video_fps=1.0), rows)

    @torch.inference_mode()
    def prompt(self, content: Content, known: Features | None = None) -> EncodedPrompt:
        """As the library's processor and masks have it."""
        inputs = process(self, content)
        words, token = inputs["input_ids"][0].numpy().astype(np.int64), self.config.image_token_id
        if "pixel_values" not in inputs:
            return laid_across(None, token, words, [], 0)
        if known is None:
            known = [("image", token, [Embeddings(self._tiles(inputs).flatten(0, 1))])]
        order, looks = _looks(inputs["cross_attention_mask"][0].flatten(1).bool().numpy())
        rows = known[0][2][0].rows
        tiles = rows.unflatten(0, (len(order), -1))
        size = tiles.shape[1]
        looks = [Look(one.first, one.begin * size, one.stop * size, one.own) for one in looks]
        shown = tiles[torch.from_numpy(order).to(rows.device)].flatten(0, 1)
        laid = laid_across(shown, token, words, looks, len(content.media), self._packed)
        return laid._replace(features=known)

    def _tiles(self, inputs: Any) -> torch.Tensor:
        """Rows `(tiles, n, hidden)` of all pictures, each with as many tiles as the largest may have."""
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        given = {name: inputs[name].to(self.device) for name in names}
        given["pixel_values"] = given["pixel_values"].to(self.model.dtype)
        seen = tower_pass(self.model.vision_model, **given).last_hidden_state
        return self.model.multi_modal_projector(seen).flatten(0, 2 if seen.dim() == 5 else 1)


def _looks(sees: np.ndarray) -> tuple[np.ndarray, list[Look]]:
    """`sees` `(words, tiles)` bool. In which order tiles lie, so that those that a word sees lie side by side; and what
    words see of them, in tiles."""
    seen = sees.any(0)
    order = np.concatenate([np.flatnonzero(seen), np.flatnonzero(~seen)])
    looks: list[Look] = []
    for row, group in groupby(range(len(sees)), key=lambda place: sees[place, order].tobytes()):
        places = np.flatnonzero(np.frombuffer(row, bool))
        if not len(places):
            looks.append(Look(next(group), 0, len(order), own=False))
            continue
        first, last = int(places[0]), int(places[-1]) + 1
        if last - first != len(places):
            raise ModelError("expected words that see pictures side by side, got some that leave one out")
        looks.append(Look(next(group), first, last))
    return order, looks


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A Llama 3.2 Vision from `path`, in `dtype` on `device`."""
    check_whole("a Llama 3.2 Vision")
    processor, model = open_sight(path, dtype, device)
    config, tokenizer, text = model.config, processor.tokenizer, model.config.text_config
    towers = MllamaTowers(model, processor)
    data = FamilyData(
        name=config.model_type,
        model=str(path),
        spec=towers.spec(),
        **learn(processor, tokenizer, model.generation_config, towers.placeholders()),
        classes={"image": "F"},
        per_second=0.0,
        axes=1,
        max_positions=text.max_position_embeddings,
        vocabulary=text.vocab_size,
        crossing=True,
    )
    return Loaded(Family(data, tokenizer), towers, model.model.language_model, model.lm_head, text)
