"""The sizes at which a model's processor takes pictures and frames, learnt by calling it. In: a processor of
`transformers`. Out: fields of `MediaSpec`; or ModelError, where it sizes pictures by another rule than `streams.size`.

The whole processor is called, as users call it, since it may ask its parts for other sizes than these have by
themselves: what it asks for is read off that call, and what comes out is compared with what the rule says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import ModelError
from ...streams.segment import MediaSpec, Option, SizeRule
from ...streams.size import fit, video_rule
from ..runner.library import transformers

VIDEO_FPS = Option("number", 0.1, 60)
_MOST_PIXELS = 1 << 30
# Heights and widths of dummies: tiny, landscape, portrait, long. Where that is quickly done, one that is too large too.
_SHAPES = ((9, 40), (240, 320), (333, 150), (60, 900))
_QUICK_PIXELS = 1 << 21


class _Asked:
    """Stands in for the processor of pictures or of video, and keeps what the whole processor asks it for."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.options: dict[str, Any] = {}

    def __call__(self, *media: Any, **options: Any) -> Any:
        self.options = options
        return self.inner(*media, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def value(self, name: str) -> Any:
        """What the call asked for, or what the part has by itself; None where neither says."""
        found = self.options.get(name)
        return getattr(self.inner, name, None) if found is None else found

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest area."""
        size = self.value("size")
        least, most = self.options.get("min_pixels"), self.options.get("max_pixels")
        return least or size["shortest_edge"], most or size["longest_edge"]


def picture_rules(processor: Any, budget: bool = False) -> dict[str, Any]:
    """The fields of `MediaSpec` that say how pictures and frames are sized.

    `budget`: a video's bounds hold for all of its frames together.
    """
    images, _ = _called(processor, "image", [np.zeros((56, 56, 3), dtype=np.uint8)])
    videos, _ = _called(processor, "video", [np.zeros((2, 56, 56, 3), dtype=np.uint8)])
    factor = images.value("patch_size") * images.value("merge_size")
    rules: dict[str, Any] = {
        "image": SizeRule(factor, *images.bounds),
        "temporal_patch": videos.value("temporal_patch_size"),
        "video_fps": 2.0,
        "options": {
            "min_pixels": Option("whole", factor * factor, _MOST_PIXELS),
            "max_pixels": Option("whole", factor * factor, _MOST_PIXELS),
            "fps": VIDEO_FPS,
        },
    }
    rules |= _of_a_budget(videos) if budget else _of_a_frame(videos)
    _check(processor, MediaSpec(**rules))
    return rules


def _of_a_frame(videos: _Asked) -> dict[str, Any]:
    """Each frame has its bounds; all together may have another."""
    factor = videos.value("patch_size") * videos.value("merge_size")
    total = int((videos.value("max_video_tokens") or 0) * factor * factor * 0.9)
    capped = videos.value("cap_pixels_per_frame")
    return {"video": SizeRule(factor, *videos.bounds), "video_total_pixels": total if capped else 0}


def _of_a_budget(videos: _Asked) -> dict[str, Any]:
    """All frames share one budget of pixels. Without a known number of them a pair may have the most that the processor
    gives one frame of any video."""
    factor, pair = videos.value("patch_size") * videos.value("merge_size"), videos.value("temporal_patch_size")
    least, most = videos.bounds
    frame = videos.value("max_video_tokens") * factor * factor
    return {
        "video": SizeRule(factor, least, min(most, frame * pair), pair, pair, lifts=True),
        "video_budget": (least, most),
        "video_frame_pixels": frame if videos.value("cap_pixels_per_frame") else 0,
    }


def _called(processor: Any, kind: str, dummies: list[np.ndarray]) -> tuple[_Asked, list[tuple[int, int]]]:
    """What the processor asks its part for, and the height and width that each dummy gets."""
    name = f"{kind}_processor"
    inner = getattr(processor, name)
    asked = _Asked(inner)
    options: dict[str, Any] = {}
    if kind == "video":
        told = transformers.video_utils.VideoMetadata  # pyright: ignore[reportAttributeAccessIssue]
        known = [told(total_num_frames=len(clip), fps=2.0, frames_indices=[*range(len(clip))]) for clip in dummies]
        options = {"videos_kwargs": {"do_sample_frames": False, "video_metadata": known}}
    setattr(processor, name, asked)
    try:
        text = getattr(processor, f"{kind}_token") * len(dummies)
        output = processor(text=[text], **{f"{kind}s": dummies}, return_tensors="pt", **options)
    finally:
        setattr(processor, name, inner)
    patch = asked.value("patch_size")
    return asked, [(height * patch, width * patch) for _, height, width in output[f"{kind}_grid_thw"].tolist()]


def _check(processor: Any, spec: MediaSpec) -> None:
    """Raise ModelError where a dummy gets another size than the rule says."""
    frames = spec.temporal_patch
    assert spec.image is not None
    for kind, rule in (("image", spec.image), ("video", video_rule(spec, frames))):
        shapes = list(_SHAPES)
        if rule.largest <= _QUICK_PIXELS:
            side = math.isqrt(rule.largest)
            shapes.append((side, 2 * side + 5))
        leading = () if kind == "image" else (frames,)
        dummies = [np.zeros((*leading, *shape, 3), dtype=np.uint8) for shape in shapes]
        _, sizes = _called(processor, kind, dummies)
        for (height, width), got in zip(shapes, sizes, strict=True):
            expected = fit(rule, height, width)
            if got != expected:
                raise ModelError(
                    f"its processor makes {width} x {height} pixels of {kind} {got[1]} x {got[0]}, expected "
                    f"{expected[1]} x {expected[0]} by the rule of its family"
                )
