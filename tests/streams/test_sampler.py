"""The causal sampler and the patches made of what it picks."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Pixels
from penstock.streams.segment import MediaSpec, SizeRule, VideoSegment
from penstock.streams.video import Sampler

from tests.streams.streamed import fed, lost, picture, segments, shown, timeline

TINY = np.zeros((1, 1, 3), np.uint8)
GAPS = st.lists(st.integers(1, 400_000), min_size=1, max_size=30)


def clip(times: list[int]) -> list[Pixels]:
    return [Pixels(TINY, time) for time in times]


@given(GAPS, st.sampled_from([1.0, 2.0, 7.0, 0.3, 29.97]), st.integers(-5_000_000, 5_000_000))
def test_each_decided_tick_has_the_nearest_frame(gaps: list[int], fps: float, start: int) -> None:
    times = [start + sum(gaps[:count]) for count in range(len(gaps) + 1)]
    sampler = Sampler(fps)
    picks = [pick for frame in clip(times) for pick in sampler.feed(frame)]
    expected, tick = [], Fraction(start)
    while tick <= times[-1]:
        expected.append(min(times, key=lambda time: (abs(tick - time), time)))
        tick += 1_000_000 / Fraction(str(fps))
    assert [pick.frame.pts_us for pick in picks] == expected


@pytest.mark.parametrize("rate", [2, 3, 4, 5, 10, 24, 25, 30, 60])
@pytest.mark.parametrize("unit", [1, 1000])
def test_a_clip_has_the_ticks_of_its_duration(rate: int, unit: int) -> None:
    for count in range(2, 3 * rate):
        sampler = Sampler(2.0)
        times = [round(index * 1_000_000 / rate / unit) * unit for index in range(count)]
        picks = [pick for frame in clip(times) for pick in sampler.feed(frame)] + sampler.flush()
        assert len(picks) == math.ceil(Fraction(2 * count, rate))
        assert sampler.flush() == []


def test_ticks_do_not_drift() -> None:
    sampler = Sampler(30.0)
    times = [round(index * 1_000_000 / 30) for index in range(0, 60_000)]
    newest = times[-1]
    picks = 0
    for frame in clip(times[::100]):
        picks += len(sampler.feed(frame))
    assert picks == (newest - times[99]) * 30 // 1_000_000 + 1


def test_a_tie_goes_to_the_earlier_frame_and_a_slow_source_is_repeated() -> None:
    sampler = Sampler(2.0)
    picks = [pick for frame in clip([0, 1_000_000, 3_000_000]) for pick in sampler.feed(frame)]
    assert [pick.frame.pts_us // 1_000_000 for pick in picks] == [0, 0, 1, 1, 1, 3, 3]


def test_a_picture_just_before_its_tick_is_seen_by_the_question() -> None:
    outputs = fed(timeline(), [picture(0), picture(49_000)])
    assert [shown(segment.pixels) for segment in segments(outputs)] == [[0, 49]]


def test_a_long_gap_is_not_filled_and_starts_a_new_grid() -> None:
    outputs = fed(timeline(), [picture(0), picture(10_000_001 // 1000 * 1000 + 1000), picture(10_051_000)])
    assert [shown(segment.pixels) for segment in segments(outputs)] == [[0, 0], [10_001, 10_051]]


def test_a_time_far_away_costs_nothing() -> None:
    outputs = fed(timeline(), [picture(0), picture(10**18)])
    assert len(segments(outputs)) == 2


def test_variable_rate_and_frames_nobody_is_nearest_to() -> None:
    times = [0, 10, 48, 51, 90, 160, 210]
    outputs = fed(timeline(), [picture(ms * 1000) for ms in times])
    # ticks 0, 50, 100, 150, 200
    assert [shown(segment.pixels) for segment in segments(outputs)] == [[0, 51], [90, 160], [210, 210]]
    assert lost(outputs) == []


def test_an_odd_frame_is_held_and_a_flush_repeats_it() -> None:
    line = timeline()
    outputs = [line.feed(seq, [picture(ms * 1000)]) for seq, ms in enumerate([0, 50, 100])]
    assert [output.held.frames for output in outputs] == [1, 0, 1]
    flushed = line.flush(3)
    assert flushed.held.frames == 0
    (segment,) = flushed.segments
    assert isinstance(segment, VideoSegment)
    assert (shown(segment.pixels), segment.start_us, segment.stop_us) == ([100, 100], 100_000, 100_000)
    assert line.flush(4).segments == []
    # The grid goes on behind a flush.
    after = [line.feed(5, [picture(ms * 1000)]) for ms in (140, 200)]
    assert [shown(segment.pixels) for segment in segments(after)] == [[140, 200]]


def test_a_lone_frame_and_a_flush() -> None:
    (segment,) = segments(fed(timeline(), [picture(5000)]))
    assert shown(segment.pixels) == [5, 5]
    assert (segment.seq, segment.index) == (1, 0)


def test_a_new_source_size_starts_a_new_run() -> None:
    frames = [picture(0), picture(50_000), picture(100_000), picture(150_000, 16, 8), picture(200_000, 16, 8)]
    shapes = [(segment.pixels.shape, shown(segment.pixels)) for segment in segments(fed(timeline(), frames))]
    assert shapes == [((2, 8, 12, 3), [0, 50]), ((2, 8, 12, 3), [100, 100]), ((2, 16, 8, 3), [150, 200])]


def test_a_second_frame_of_the_same_time_is_reported() -> None:
    outputs = fed(timeline(), [picture(0), picture(60_000), picture(60_000), picture(100_000)])
    assert lost(outputs) == [("video", "late", 1)]
    assert [drop.seq for output in outputs for drop in output.dropped] == [2]
    assert [shown(segment.pixels) for segment in segments(outputs)] == [[0, 60], [100, 100]]


def test_patches_of_one_frame() -> None:
    spec = MediaSpec(video=SizeRule(4, 16, 400), temporal_patch=1, video_fps=20.0)
    outputs = fed(timeline(spec=spec), [picture(0), picture(50_000)])
    assert [shown(segment.pixels) for segment in segments(outputs)] == [[0], [50]]
