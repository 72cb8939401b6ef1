"""What the vision towers of the Qwen family share: pictures and frame pairs in, spans out; whole prompts by the model's
own processor.

Encoders are asked through `get_image_features` and `get_video_features`. Pair by pair equals the whole clip to the bit:
class A for images and video. It does not know sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any

import numpy as np
import torch

from ...codecs.errors import InputError
from ...streams.event import Seen
from ...streams.segment import ImageSegment, Segment, SizeRule, VideoSegment
from ..span import Prompt, Rows, Span

Pictures = tuple[torch.Tensor, tuple[int, int, int]]  # rows, and the grid they lie on
Features = list[tuple[str, int, torch.Tensor]]  # modality, placeholder id, rows


class PictureTowers:
    """A vision tower. Nothing is kept per stream."""

    kinds: tuple[str, ...] = ("text", "image", "video")  # parts that a message may have

    def __init__(self, model: Any, processor: Any, blocks: Iterable[Any] | None = None) -> None:
        self.model = model
        self.config = model.config
        self.processor = processor
        self.device = model.device
        self.blocks: list[Any] = list(model.visual.blocks if blocks is None else blocks)
        self.turn: Callable[[], AbstractContextManager[None]] = nullcontext

    def rows(self, segment: Segment) -> int:
        """How many rows the segment will have."""
        return self._picture_rows(segment)

    @torch.inference_mode()
    def encode(self, batch: list[tuple[int, Segment]]) -> list[Span]:
        """Spans of (stream, segment) pairs: one pass over all images, one over all pairs of frames."""
        images = iter(self._images([one.pixels for _, one in batch if isinstance(one, ImageSegment)]))
        clips = iter(self._clips([one.pixels for _, one in batch if isinstance(one, VideoSegment)]))
        spans = []
        for _, segment in batch:
            match segment:
                case ImageSegment():
                    spans.append(self._seen(segment, "image", next(images)))
                case VideoSegment():
                    spans.append(self._timed(self._seen(segment, "video", next(clips))))
                case _:
                    raise InputError(f"expected a picture or frames, got {type(segment).__name__}")
        return spans

    def fork(self, stream: int, twin: int) -> None:
        """Nothing is kept per stream."""

    def forget(self, stream: int) -> None:
        """Nothing is kept per stream."""

    @torch.inference_mode()
    def prompt(
        self, messages: list[dict[str, Any]], system: str | None, fps: float | None, audio_in_video: bool
    ) -> Prompt:
        """Template, processor, features and positions exactly as `transformers` has them for a whole prompt.

        Content parts: `{"type": "text" | "image" | "video", <type>: value}`; an image is a PIL image or an array
        `(h, w, 3)`, a video an array `(n, h, w, 3)`.
        """
        messages = self._with_system(messages, system)
        media = self._media(messages)
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        options: dict[str, Any] = {"fps": fps} if fps is not None and media["video"] else {}
        inputs = self.processor(
            text=[text],
            images=media["image"] or None,
            videos=media["video"] or None,
            return_tensors="pt",
            **options,
        ).to(self.device)
        grids = {name: inputs.get(name) for name in ("image_grid_thw", "video_grid_thw")}
        times = inputs.get("second_per_grid_ts")
        if times is not None:
            grids["second_per_grid_ts"] = torch.as_tensor(times)
        positions, _ = self.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            attention_mask=inputs["attention_mask"],
            **grids,
        )
        return Prompt(self._laid(inputs["input_ids"][0], positions[:, 0], self._picture_features(inputs)))

    def _with_system(self, messages: list[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
        if system is None:
            return messages
        return [{"role": "system", "content": [{"type": "text", "text": system}]}, *messages]

    def _media(self, messages: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
        """The values of all parts by their type, in order. InputError where a part is none that the model takes."""
        media: dict[str, list[Any]] = {kind: [] for kind in self.kinds if kind != "text"}
        for message in messages:
            for part in message["content"] if isinstance(message["content"], list) else []:
                kind = part.get("type")
                if kind not in self.kinds:
                    *others, last = self.kinds
                    raise InputError(f"content part: expected {', '.join(others)} or {last}, got {kind!r}")
                if kind != "text":
                    media[kind].append(self._value(part))
        return media

    def _value(self, part: dict[str, Any]) -> Any:
        return part[part["type"]]

    def _laid(self, ids: torch.Tensor, positions: torch.Tensor, features: Features) -> list[Rows]:
        """A whole prompt as rows: runs of text and of media in turn."""
        width = features[0][2].shape[1] if features else 0
        embeds = torch.zeros(len(ids), width, dtype=self.model.dtype, device=self.device)
        media = torch.zeros(len(ids), dtype=torch.bool)
        for name, token, rows in features:
            mask = ids == token
            if int(mask.sum()) != len(rows):
                raise InputError(f"{name}: expected {int(mask.sum())} placeholder rows in the prompt, got {len(rows)}")
            embeds[mask] = rows.to(embeds.dtype)
            media |= mask.cpu()
        places = positions.cpu().numpy().astype(np.int64)
        plain = ids.cpu().numpy()
        laid, start = [], 0
        for is_media, group in groupby(media.tolist()):
            stop = start + len(list(group))
            seen = Seen(1, "prompt", None, None) if is_media else None
            laid.append(Rows(plain[start:stop], places[:, start:stop], embeds[start:stop] if is_media else None, seen))
            start = stop
        return laid

    def _picture_features(self, inputs: Any) -> Features:
        found: Features = []
        if "pixel_values" in inputs:
            with self.turn():
                output = self.model.get_image_features(
                    inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
                )
            found.append(("image", self.config.image_token_id, torch.cat(self._joined(output))))
        if "pixel_values_videos" in inputs:
            with self.turn():
                output = self.model.get_video_features(
                    inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True
                )
            found.append(("video", self.config.video_token_id, torch.cat(self._joined(output))))
        return found

    def _picture_rows(self, segment: Any) -> int:
        patch = self.processor.image_processor.patch_size * self.model.visual.spatial_merge_size
        *frames, height, width, _ = segment.pixels.shape
        patches = frames[0] // self.processor.video_processor.temporal_patch_size if frames else 1
        return patches * (height // patch) * (width // patch)

    def _images(self, pixels: list[np.ndarray]) -> list[Pictures]:
        if not pixels:
            return []
        inputs = self.processor.image_processor(pixels, do_resize=False, return_tensors="pt").to(self.device)
        grids = inputs["image_grid_thw"]
        with self.turn():
            output = self.model.get_image_features(inputs["pixel_values"], grids, return_dict=True)
        return self._merged(self._joined(output), grids)

    def _clips(self, pixels: list[np.ndarray]) -> list[Pictures]:
        if not pixels:
            return []
        videos = [torch.from_numpy(frames).permute(0, 3, 1, 2) for frames in pixels]
        inputs = self.processor.video_processor(
            videos, do_resize=False, do_sample_frames=False, return_tensors="pt"
        ).to(self.device)
        grids = inputs["video_grid_thw"]
        with self.turn():
            output = self.model.get_video_features(inputs["pixel_values_videos"], grids, return_dict=True)
        return self._merged(self._joined(output), grids)

    def _joined(self, output: Any) -> list[torch.Tensor]:
        """The rows of each picture; what is added behind the decoder's first layers stands beside them."""
        deep = getattr(output, "deepstack_features", None) or []
        return [torch.cat(parts, dim=-1) for parts in zip(output.pooler_output, *deep, strict=True)]

    def _merged(self, features: Any, grids: torch.Tensor) -> list[Pictures]:
        merge = self.model.visual.spatial_merge_size
        return [(rows, (t, h // merge, w // merge)) for rows, (t, h, w) in zip(features, grids.tolist(), strict=True)]

    def _seen(self, segment: Segment, modality: str, pictures: Pictures) -> Span:
        features, grid = pictures
        token = self.config.image_token_id if modality == "image" else self.config.video_token_id
        ids = np.full(len(features), token, dtype=np.int64)
        return Span(segment.seq, segment.index, modality, ids, features, grid, 0, 0, segment.start_us, segment.stop_us)

    def _timed(self, span: Span) -> Span:
        """The span of a pair of frames, with the words for its time where the model has such."""
        return span


def with_towers(model: Any) -> Any:
    """The part that holds the towers: some versions of the library have them on the model itself."""
    return model.model if hasattr(model.model, "visual") else model


def picture_rules(processor: Any) -> dict[str, Any]:
    """The fields of `MediaSpec` that say how pictures and frames are sized."""
    images, videos = processor.image_processor, processor.video_processor
    factor = images.patch_size * images.merge_size
    cap = getattr(videos, "cap_pixels_per_frame", None)
    return {
        "image": SizeRule(factor, images.size["shortest_edge"], images.size["longest_edge"]),
        "video": SizeRule(factor, videos.size["shortest_edge"], videos.size["longest_edge"]),
        "video_total_pixels": int(getattr(videos, "max_video_tokens", 0) * factor * factor * 0.9) if cap else 0,
        "temporal_patch": videos.temporal_patch_size,
        "video_fps": 2.0,
    }
