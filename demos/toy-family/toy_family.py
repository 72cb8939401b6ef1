"""Toy: a picture is a few squares, and each square becomes one row of a Llama. A family of models outside Penstock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from penstock.families import Loaded, OneAxisTowers, load_one_axis
from transformers.modeling_outputs import BaseModelOutputWithPooling


class ToyConfig(hf.LlavaConfig):
    model_type = "toy"


class ToyModel(hf.LlavaModel):
    """LLaVA with a tower of its own: layers that see one square each."""

    def __init__(self, config: Any) -> None:
        super(hf.LlavaModel, self).__init__(config)
        sight, width = config.vision_config, config.text_config.hidden_size
        self.squares = torch.nn.Conv2d(3, width, sight.patch_size, sight.patch_size)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(sight.num_hidden_layers))
        self.language_model = hf.AutoModel.from_config(config.text_config)
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        rows = self.squares(pixel_values).flatten(2).transpose(1, 2)
        for layer in self.layers:
            rows = rows + torch.relu(layer(rows))
        pictures: Any = list(rows)
        return BaseModelOutputWithPooling(pooler_output=pictures)


class ToyForConditionalGeneration(hf.LlavaForConditionalGeneration):
    config_class = ToyConfig

    def __init__(self, config: Any) -> None:
        super(hf.LlavaForConditionalGeneration, self).__init__(config)
        self.model = ToyModel(config)
        self.lm_head = torch.nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


class ToyTowers(OneAxisTowers):
    def __init__(self, model: Any, processor: Any, blocks: Any) -> None:
        super().__init__(model, processor, blocks)
        self.image_rows = (processor.image_processor.crop_size["height"] // processor.patch_size) ** 2


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    return load_one_axis(path, dtype, device, ToyTowers, ("layers", "language_model"), blocks=list)


hf.AutoConfig.register("toy", ToyConfig)
hf.AutoModelForImageTextToText.register(ToyConfig, ToyForConditionalGeneration)
