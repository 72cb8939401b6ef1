"""How models whose rows stand on one axis take pictures and frames: LLaVA, LLaVA-OneVision, Gemma 3, SmolVLM.

In: a model, its processor, pixels. Out: words and rows in their order, and who sees whom where rows look ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Row
from typing import Any, NamedTuple

import numpy as np
import torch

MODEL_TYPES = ("llava", "llava_onevision", "gemma3", "smolvlm")


class Media(NamedTuple):
    """Rows of a picture or a frame: the placeholder's id for each, and their embeddings `(n, hidden)`."""

    token: int
    embeds: torch.Tensor


def image(model: Any, processor: Any, pixels: np.ndarray) -> list[str | Media]:
    """One picture in a stream: never cut into tiles."""
    images, config = processor.image_processor, model.config
    match config.model_type:
        case "llava":
            inputs = images(images=[pixels], return_tensors="pt")
            (rows,) = model.get_image_features(inputs["pixel_values"]).pooler_output
            return [Media(config.image_token_id, rows), "\n"]
        case "gemma3":
            inputs = images(images=[pixels], return_tensors="pt")
            (rows,) = model.get_image_features(inputs["pixel_values"]).pooler_output
            return ["\n\n<start_of_image>", Media(config.image_token_id, rows), "<end_of_image>\n\n"]
        case "llava_onevision":
            tile = images(images=[[pixels, pixels]], return_tensors="pt")["pixel_values"][0]
            seen = model.model.vision_tower(tile[:1], output_hidden_states=True).hidden_states[-1]
            rows = model.model.multi_modal_projector(seen)[0]
            return [Media(config.image_token_id, torch.cat([rows, model.model.image_newline[None]]))]
    inputs = images(images=[[pixels]], do_image_splitting=False, return_tensors="pt")
    rows = torch.cat(list(model.get_image_features(**inputs).pooler_output))
    return ["<fake_token_around_image><global-img>", Media(config.image_token_id, rows), "<fake_token_around_image>"]


def video(model: Any, processor: Any, frames: np.ndarray, times: Row[float]) -> list[str | Media]:
    """The frames of one block, all encoded at once; `times` in seconds."""
    clip = [torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2)]
    inputs = processor.video_processor(videos=clip, do_sample_frames=False, return_tensors="pt")
    config = model.config
    if config.model_type == "llava_onevision":
        pixels = inputs["pixel_values_videos"]
        count = pixels.shape[1] * math.ceil(math.isqrt(processor.num_image_tokens) / 2) ** 2
        rows = model.get_video_features(pixels).pooler_output[0]
        # Not every version of the library has the row for a new line among these.
        rows = torch.cat([rows[:count], model.model.image_newline[None]])
        return [Media(config.video_token_id, rows)]
    rows = torch.cat(list(model.get_image_features(**inputs).pooler_output))
    laid: list[str | Media] = []
    for time, frame in zip(times, rows.split(processor.image_seq_len), strict=True):
        laid += [
            f"\nFrame from {int(time // 60):02d}:{int(time % 60):02d}:",
            "<fake_token_around_image><global-img>",
            Media(config.image_token_id, frame),
            "<fake_token_around_image>",
        ]
    return [*laid, "\n\n"]


def masks(config: Any, mutual: Row[tuple[int, int]], count: int, total: int) -> dict[str, torch.Tensor]:
    """Gemma's masks `(1, 1, count, total)` for the last `count` of `total` rows, by kind of layer: a row sees those
    before it, an image's rows one another; some layers see only the newest of these."""
    rows, seen = torch.arange(total - count, total)[:, None], torch.arange(total)
    sees = seen <= rows
    for start, stop in mutual:
        sees |= (rows >= start) & (rows < stop) & (seen >= start) & (seen < stop)
    window = seen > rows - config.text_config.sliding_window
    return {"full_attention": sees[None, None], "sliding_attention": (sees & window)[None, None]}
