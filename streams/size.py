"""The size at which a picture goes into the model. Comes in: a rule and the source's size; goes out: height and width.

Knows nothing of pixels. The formula is `smart_resize` of transformers (models/qwen2_vl/image_processing_qwen2_vl.py),
the bound on a whole video that of `Qwen2VLVideoProcessor.resize` (models/qwen2_vl/video_processing_qwen2_vl.py).
"""

from __future__ import annotations

import math

import msgspec

from ..errors import InputError
from .segment import MediaSpec, SizeRule

MAX_ASPECT = 200


def fit(rule: SizeRule, height: int, width: int) -> tuple[int, int]:
    """The height and width that `rule` gives a picture of `height` x `width` pixels.

    Each side is rounded to a multiple of the factor. Where the area then leaves the rule's range, both sides are
    scaled by the same number first, and rounded down (too large) or up (too small). InputError for an empty picture,
    and for one whose longer side is more than 200 times its shorter side.
    """
    _check_empty(height, width)
    factor = rule.factor
    if rule.lifts and min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    check_sides(height, width)
    rows, columns = round(height / factor), round(width / factor)
    area = rows * columns * factor * factor * rule.counted
    if area > rule.max_pixels:
        shrink = math.sqrt(rule.frames * height * width / rule.max_pixels)
        rows = max(1, math.floor(height / shrink / factor))
        columns = max(1, math.floor(width / shrink / factor))
    elif area < rule.min_pixels:
        grow = math.sqrt(rule.min_pixels / (rule.frames * height * width))
        rows = math.ceil(height * grow / factor)
        columns = math.ceil(width * grow / factor)
    return rows * factor, columns * factor


def check_sides(height: int, width: int) -> None:
    """Raise InputError for an empty picture, and for one that is too long."""
    _check_empty(height, width)
    shorter, longer = sorted((height, width))
    if longer > MAX_ASPECT * shorter:
        ratio = longer / shorter
        raise InputError(
            f"picture of {width} x {height}: expected an aspect ratio of at most {MAX_ASPECT}, got {ratio:.1f}"
        )


def smaller_rule(rule: SizeRule, most: int) -> SizeRule:
    """The rule for frames that have at most `most` pixels each. InputError where `rule` gives none such, and where it
    gives no others."""
    least = math.ceil(rule.min_pixels / rule.counted)
    if not least <= most <= rule.largest:
        raise InputError(
            f"video_pixels_idle: expected {least} to {rule.largest}, what a frame of this stream may have, got {most}"
        )
    return msgspec.structs.replace(rule, max_pixels=most * min(rule.frames, rule.counted))


def _check_empty(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise InputError(f"picture: expected at least 1 pixel on each side, got {width} x {height}")


def video_rule(spec: MediaSpec, expected_frames: int | None) -> SizeRule:
    """The size rule of one frame of a video of `expected_frames` frames.

    With a budget for the whole video its ends hold for all frames together, and where one frame is bounded too, the
    larger is at most what so many such frames have. With a bound each frame has an even share of it, `temporal_patch`
    frames counting as one, but at least 1.05 times the smallest area and at most the area of the frame's own rule.
    Without either, or where `expected_frames` is None, only the frame's own rule holds. InputError where the model
    takes no video.
    """
    if spec.video is None:
        raise InputError("video: expected a model that takes video, got one that does not")
    if expected_frames is not None and spec.video_budget[1]:
        patch, (least, most) = spec.temporal_patch, spec.video_budget
        count = max(expected_frames, patch)
        if spec.video_frame_pixels:
            most = max(min(spec.video_frame_pixels, most // count), int(least * 1.05)) * count
        return SizeRule(spec.video.factor, least, most, count, round(count / patch) * patch, lifts=True)
    if not spec.video_total_pixels or expected_frames is None:
        return spec.video
    share = spec.video_total_pixels * spec.temporal_patch // expected_frames
    largest = max(min(spec.video.max_pixels, share), int(spec.video.min_pixels * 1.05))
    return msgspec.structs.replace(spec.video, max_pixels=largest)
