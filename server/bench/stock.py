"""The same appends and decode steps by plain `transformers`, for comparison: one user, one kept `DynamicCache`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...engine.runner.library import transformers


class Stock:
    """A stock Qwen2.5-Omni thinker (sdpa) with `history` rows in a kept cache; their values are random."""

    def __init__(self, model: Any, processor: Any, history: int) -> None:
        self._model = model
        self._processor = processor
        self._position = history
        config = model.config.text_config
        shape = (1, config.num_key_value_heads, history, config.hidden_size // config.num_attention_heads)
        self._cache = transformers.DynamicCache()
        for layer in range(config.num_hidden_layers):
            keys, values = (torch.randn(shape, dtype=model.dtype, device=model.device) for _ in range(2))
            self._cache.update(keys, values, layer)

    @staticmethod
    def load(path: str, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
        """Model and processor, as the library loads them, on the device."""
        model: Any = transformers.Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(path, dtype=dtype)
        return model.to(device).eval(), transformers.Qwen2_5OmniProcessor.from_pretrained(path)

    @torch.inference_mode()
    def append(self, pixels: np.ndarray) -> None:
        """A frame pair `(2, h, w, 3)`, its wrappers and the last token: encoded, fed, one token drawn."""
        clip = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        inputs = self._processor.video_processor([clip], do_resize=False, do_sample_frames=False, return_tensors="pt")
        model, inputs = self._model, inputs.to(self._model.device)
        output = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True)
        wrapper = model.get_input_embeddings()(torch.tensor([0, 0, 0], device=model.device))
        self._feed(torch.cat([wrapper[:2], torch.cat(output.pooler_output), wrapper[2:]]))

    @torch.inference_mode()
    def decode(self) -> None:
        """One token fed, one drawn."""
        self._feed(self._model.get_input_embeddings()(torch.tensor([0], device=self._model.device)))

    def _feed(self, embeds: torch.Tensor) -> None:
        places = torch.arange(self._position, self._position + len(embeds), device=embeds.device).expand(3, 1, -1)
        self._position += len(embeds)
        decoder = getattr(self._model.model, "language_model", self._model.model)
        states = decoder(
            inputs_embeds=embeds[None], position_ids=places, past_key_values=self._cache, use_cache=True
        ).last_hidden_state
        self._model.lm_head(states[:, -1]).argmax().item()
