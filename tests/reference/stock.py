"""How the installed library is asked for what it has no stable name for, and how it is told when frames were taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import processing_utils
from transformers.video_utils import VideoMetadata

# Processors that take the media of a prompt as a list for each prompt, and the rate of the others' clips as a number.
_NESTED = ("llava", "llava_onevision", "gemma3", "smolvlm")


def in_video_options(videos: int) -> dict[str, Any]:
    """What the processor of Qwen2.5-Omni takes for sound inside each of `videos` videos."""
    if hasattr(processing_utils, "OmniModalProcessingKwargs"):
        return {"load_audio_from_video": True, "audio_from_video_indices": list(range(videos))}
    return {"use_audio_in_video": True}


def model_rate(model_type: str) -> float:
    """Frames a second that a model takes where nothing else is said."""
    return 1.0 if model_type in _NESTED else 2.0


def video_options(model_type: str, counts: Sequence[int], fps: float | None = None) -> dict[str, Any]:
    """What the processor of a model takes beside clips of `counts` frames, so that it takes every frame and knows when
    each was taken: `fps` frames a second (None: the model's own rate), the first at 0. Left to itself it believes in
    24 frames a second."""
    if not counts:
        return {}
    rate = fps or model_rate(model_type)
    if "omni" in model_type:
        return {"videos_kwargs": {"do_sample_frames": False, "fps": rate}}
    known = [VideoMetadata(n, fps=rate, duration=n / rate, frames_indices=list(range(n))) for n in counts]
    return {"video_metadata": [known] if model_type in _NESTED else known, "do_sample_frames": False}
