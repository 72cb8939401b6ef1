"""Sizes are those of the processors in transformers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.wheels import mend_wheels
from penstock.errors import InputError
from penstock.streams.segment import MediaSpec, SizeRule
from penstock.streams.size import fit, video_rule

from tests.streams.streamed import picture, segments, timeline

SIDES = st.integers(1, 4000)


def stock():
    mend_wheels()
    from transformers.models.qwen2_vl import image_processing_qwen2_vl, video_processing_qwen2_vl

    return image_processing_qwen2_vl.smart_resize, video_processing_qwen2_vl.Qwen2VLVideoProcessor


@given(SIDES, SIDES, st.sampled_from([14, 28, 32]), st.integers(1, 200), st.integers(0, 2000))
def test_equals_smart_resize(height: int, width: int, factor: int, least: int, more: int) -> None:
    smart_resize, _ = stock()
    rule = SizeRule(factor, least * factor**2, (least + more) * factor**2)
    try:
        expected = smart_resize(height, width, factor, rule.min_pixels, rule.max_pixels)
    except ValueError:
        with pytest.raises(InputError):
            fit(rule, height, width)
    else:
        assert fit(rule, height, width) == tuple(expected)


def test_says_both_aspect_ratios() -> None:
    rule = SizeRule(28, 3136, 1_000_000)
    assert fit(rule, 10, 2000) == (28, 812)
    with pytest.raises(InputError, match=r"at most 200, got 200\.1"):
        fit(rule, 2001, 10)


@pytest.mark.parametrize("frames", [1, 2, 5, 33, 768])
def test_expected_frames_size_equals_the_stock_processor(frames: int) -> None:
    _, processor_class = stock()
    processor = processor_class(cap_pixels_per_frame=True, min_pixels=784, max_pixels=40 * 784, max_video_tokens=640)
    spec = MediaSpec(video=SizeRule(28, 784, 40 * 784), video_total_pixels=int(640 * 28 * 28 * 0.9), temporal_patch=2)
    clip = np.zeros((frames, 90, 160, 3), np.uint8)
    grid = processor(videos=[clip], return_tensors="pt", do_sample_frames=False)["video_grid_thw"][0].tolist()
    assert fit(video_rule(spec, frames), 90, 160) == (grid[1] * 14, grid[2] * 14)


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(2, 400))
def test_a_budget_for_the_whole_video_equals_the_stock_rule(height: int, width: int, frames: int) -> None:
    mend_wheels()
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    budget = (128 * 1024, 768 * 1024 * 16)
    spec = MediaSpec(video=SizeRule(32, 1024, 1024), video_budget=budget, temporal_patch=2)
    try:
        expected = smart_resize(frames, height, width, 2, 32, *budget)
    except ValueError:
        with pytest.raises(InputError, match="aspect ratio"):
            fit(video_rule(spec, frames), height, width)
    else:
        assert fit(video_rule(spec, frames), height, width) == expected


@pytest.mark.parametrize("frames", [2, 5, 33, 768])
def test_a_budget_with_a_bound_on_frames_equals_the_stock_processor(frames: int) -> None:
    mend_wheels()
    from transformers import Qwen3VLVideoProcessor

    size = {"shortest_edge": 2 * 1024, "longest_edge": 300 * 1024}
    processor = Qwen3VLVideoProcessor(size=size, cap_pixels_per_frame=True, max_video_tokens=20)
    budget = (size["shortest_edge"], size["longest_edge"])
    spec = MediaSpec(video=SizeRule(32, 1024, 1024), video_budget=budget, video_frame_pixels=20 * 1024)
    clip = np.zeros((frames, 3, 90, 160), np.uint8)
    grid = processor(videos=[clip], return_tensors="pt", do_sample_frames=False)["video_grid_thw"][0].tolist()
    assert fit(video_rule(spec, frames), 90, 160) == (grid[1] * 16, grid[2] * 16)


def test_expected_frames_change_the_size_and_their_absence_gives_the_frame_rule() -> None:
    spec = MediaSpec(video=SizeRule(28, 784, 40 * 784), video_total_pixels=100 * 784)
    assert video_rule(spec, None) == spec.video
    assert video_rule(spec, 4).max_pixels == 40 * 784
    assert video_rule(spec, 10).max_pixels == 20 * 784
    assert video_rule(spec, 10_000).max_pixels == int(784 * 1.05)


def test_size_is_fixed_before_the_number_of_frames_is_known() -> None:
    spec = MediaSpec(video=SizeRule(4, 16, 400), video_total_pixels=800, video_fps=20.0)
    for expected, size in ((None, (20, 20)), (8, (12, 12))):
        line = timeline(spec=spec, expected_frames=expected)
        outputs = [line.feed(0, [picture(ms * 1000, 40, 40)]) for ms in range(0, 400, 50)]
        assert [segment.pixels.shape for segment in segments(outputs)] == [(2, *size, 3)] * 4
