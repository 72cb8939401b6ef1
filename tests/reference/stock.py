"""How the installed library is asked for what it has no stable name for."""

from __future__ import annotations

from typing import Any

from transformers import processing_utils


def in_video_options(videos: int) -> dict[str, Any]:
    """What the processor of Qwen2.5-Omni takes for sound inside each of `videos` videos."""
    if hasattr(processing_utils, "OmniModalProcessingKwargs"):
        return {"load_audio_from_video": True, "audio_from_video_indices": list(range(videos))}
    return {"use_audio_in_video": True}
