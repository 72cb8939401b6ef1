"""SmolVLM: images and video, as text out (arXiv 2504.05299).

Each frame of a video stands after words for its time, `Frame from 00:03:`. The library's processor also tells before a
whole video how many frames it has and how long it is; a stream does not know, and leaves that out. Frames and images
are encoded one by one and their rows are causal: class A.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import torch

from ...errors import InputError
from ...streams.requests.prompt import Content
from ...streams.segment import MediaSpec, Option
from ..embeddings import Embeddings
from ..family import Loaded
from ..runner.gate import tower_pass
from ..runner.library import transformers
from ..span import Span
from .one_axis import AS_IT_CAME, NO_GRID, OneAxisTowers, load_one_axis
from .sizes import VIDEO_FPS
from .towers import Pictures, as_files


class SmolTowers(OneAxisTowers):
    """SigLIP's tower and the connector that shuffles pixels into channels."""

    kinds: tuple[str, ...] = ("text", "image", "video")
    tells_times = True
    classes: ClassVar[dict[str, str]] = {"image": "A", "video": "A"}

    def __init__(self, model: Any, processor: Any, blocks: Any) -> None:
        super().__init__(model, processor, blocks)
        self.image_rows = self.frame_rows = processor.image_seq_len
        self._words = transformers.models.smolvlm.processing_smolvlm
        self._marks = (processor.fake_image_token, processor.global_image_token)
        self._around = processor.tokenizer.convert_tokens_to_ids(list(self._marks))

    def spec(self) -> MediaSpec:
        rate = getattr(self.processor.video_processor, "fps", None) or 1.0
        options = {"fps": VIDEO_FPS, "do_image_splitting": Option("switch")}
        rules = {"temporal_patch": 1, "video_fps": float(rate), "options": options}
        return MediaSpec(image=AS_IT_CAME, video=AS_IT_CAME, **rules)

    def own_blocks(self) -> dict[str, tuple[str, str]]:
        return {"image": ("".join(self._marks), self._marks[0]), "video": ("", self._words.DEFAULT_MEDIA_OUTTRO)}

    @torch.inference_mode()
    def encode_pictures(self, pixels: list[np.ndarray]) -> list[torch.Tensor]:
        inputs = self.processor.image_processor([as_files(pixels)], do_image_splitting=False, return_tensors="pt")
        return list(torch.cat(self._encoded(inputs)).split(self.image_rows))

    def media_options(self, media: dict[str, list[Any]], content: Content) -> dict[str, Any]:
        """Those of the other towers; images and video together are refused."""
        if media["image"] and media["video"]:
            raise InputError("expected images or video in one prompt, got both: its processor takes no more")
        return super().media_options(media, content)

    def _clips(self, pixels: list[np.ndarray]) -> list[Pictures]:
        return [(Embeddings(rows), NO_GRID) for rows in self._encoded(self._clip_inputs(pixels))] if pixels else []

    def _encoded(self, inputs: Any) -> list[torch.Tensor]:
        pixels = inputs["pixel_values"].to(self.device, self.model.dtype)
        mask = inputs["pixel_attention_mask"].to(self.device)
        return list(tower_pass(self.model.get_image_features, pixels, mask, return_dict=True).pooler_output)

    def timed(self, span: Span) -> Span:
        assert span.start_us is not None
        minutes, seconds = divmod(span.start_us // 1_000_000, 60)
        words = self._words.FRAME_TIMESTAMP_MESSAGE.format(timestamp=f"{minutes:02d}:{seconds:02d}")
        ids = self.processor.tokenizer(words, add_special_tokens=False)["input_ids"]
        return msgspec.structs.replace(span, before=(*ids, *self._around), after=tuple(self._around[:1]))


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A SmolVLM from `path`, in `dtype` on `device`."""
    return load_one_axis(path, dtype, device, SmolTowers, ("vision_model", "text_model"))
