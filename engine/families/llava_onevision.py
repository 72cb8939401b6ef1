"""LLaVA-OneVision: images and video, as text out (arXiv 2408.03326).

Each frame is pooled to a quarter of its rows, and one row for a new line closes a video. Frames and images are encoded
one by one and their rows are causal: class A.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ...errors import InputError
from ...streams.requests.prompt import Content
from ...streams.segment import MediaSpec
from ..embeddings import Embeddings, Features
from ..family import Loaded
from ..runner.gate import tower_pass
from .one_axis import AS_IT_CAME, NO_GRID, OneAxisTowers, load_one_axis
from .sizes import VIDEO_FPS
from .towers import Pictures, as_files


class OneVisionTowers(OneAxisTowers):
    """SigLIP's tower, the projector, and the row for a new line."""

    kinds: tuple[str, ...] = ("text", "image", "video")
    classes: ClassVar[dict[str, str]] = {"image": "A", "video": "A"}

    def __init__(self, model: Any, processor: Any, blocks: Any) -> None:
        super().__init__(model, processor, blocks)
        dropped = processor.vision_feature_select_strategy == "default"
        self.image_rows = processor.num_image_tokens + 1 - dropped
        self.frame_rows = math.ceil(math.isqrt(processor.num_image_tokens) / 2) ** 2

    def spec(self) -> MediaSpec:
        rules = {"temporal_patch": 1, "video_fps": 1.0, "options": {"fps": VIDEO_FPS}}
        return MediaSpec(image=AS_IT_CAME, video=AS_IT_CAME, **rules)

    def endings(self) -> dict[str, torch.Tensor]:
        return {"video": self.model.image_newline.detach()[None]}

    @torch.inference_mode()
    def encode_pictures(self, pixels: list[np.ndarray]) -> list[torch.Tensor]:
        """One tile each: a picture counts as one of several, also where it is alone."""
        several = as_files([*pixels, pixels[0]] if len(pixels) == 1 else pixels)
        inputs = self.processor.image_processor([several], return_tensors="pt")
        count = len(pixels)
        inputs["pixel_values"], inputs["image_sizes"] = inputs["pixel_values"][:count], inputs["image_sizes"][:count]
        return self._encoded(inputs)

    def media_options(self, media: dict[str, list[Any]], content: Content) -> dict[str, Any]:
        """Those of the other towers; the library has no way for videos of several lengths."""
        lengths = [len(frames) for frames in media["video"]]
        if len(set(lengths)) > 1:
            got = ", ".join(map(str, lengths))
            raise InputError(f"expected videos of one length in one prompt, got {got} frames")
        return super().media_options(media, content)

    def encode_prompt(self, inputs: Any) -> Features:
        features = super().encode_prompt(inputs)
        if "pixel_values_videos" in inputs:
            newline = self.endings()["video"]
            videos = [Embeddings(torch.cat([video, newline.to(video)])) for video in self._videos(inputs)]
            features.append(("video", self.config.video_token_id, videos))
        return features

    def token_id(self, modality: str) -> int:
        return self.config.image_token_id if modality == "image" else self.config.video_token_id

    def _clips(self, pixels: list[np.ndarray]) -> list[Pictures]:
        return [(Embeddings(rows), NO_GRID) for rows in self._videos(self._clip_inputs(pixels))] if pixels else []

    def _encoded(self, inputs: Any) -> list[torch.Tensor]:
        pixels = inputs["pixel_values"].to(self.device, self.model.dtype)
        counts = inputs["batch_num_images"]
        output = tower_pass(
            self.model.get_image_features, pixels, inputs["image_sizes"], batch_num_images=counts, return_dict=True
        )
        return list(output.pooler_output)

    def _videos(self, inputs: Any) -> list[torch.Tensor]:
        """Rows of each video without the one for a new line, which some versions of the library put after them."""
        videos = inputs["pixel_values_videos"].to(self.device, self.model.dtype)
        features = tower_pass(self.model.get_video_features, videos, return_dict=True).pooler_output
        return [rows[: videos.shape[1] * self.frame_rows] for rows in features]


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A LLaVA-OneVision from `path`, in `dtype` on `device`."""
    return load_one_axis(path, dtype, device, OneVisionTowers, ("vision_tower", "language_model"))
