"""Runs of sound and their blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Samples
from penstock.streams.segment import AudioSegment
from penstock.streams.timeline import Timeline

from tests.streams.streamed import RATE, SPEC, body, cut, faces, fed, lost, segments, sound, timeline

CUTS = st.lists(st.integers(1, 900), max_size=12)


@given(st.integers(1, 900), CUTS, st.integers(-3000, 3000))
def test_bodies_are_the_run_with_real_samples_on_both_sides(count: int, places: list[int], start: int) -> None:
    whole = sound(start, count, origin_ms=start)
    outputs = fed(timeline(), list(cut(whole, places)))
    blocks: list[AudioSegment] = segments(outputs)
    assert faces(outputs) == faces(fed(timeline(), [whole]))
    rest = count % SPEC.block_samples
    short = rest if rest <= 20 else 0
    assert lost(outputs) == ([("audio", "short", short)] if short else [])
    values = whole.samples[0]
    joined = np.concatenate([np.zeros(0, np.float32), *map(body, blocks)])
    assert np.array_equal(joined, values[: count - short])
    for number, block in enumerate(blocks):
        first = number * SPEC.block_samples
        lead = 0 if number == 0 else SPEC.lead_samples
        until = min(first + SPEC.block_samples + SPEC.look_ahead_samples, count)
        assert np.array_equal(block.samples, values[first - lead : until])
        assert block.lead == lead
        assert block.start_us == (start + first) * 1000
        assert block.frames == -(-len(body(block)) // SPEC.hop_samples)
        assert block.run == 0


def test_a_block_goes_out_when_its_look_ahead_is_there() -> None:
    line = timeline()
    before = line.feed(0, [sound(0, 211)])  # the stand-in holds back 7
    assert (before.segments, before.held.samples) == ([], 204)
    after = line.feed(1, [sound(211, 1)])
    assert [segment.seq for segment in after.segments] == [1]
    assert after.held.samples == 5


def test_a_flush_ends_the_run() -> None:
    line = timeline()
    line.feed(0, [sound(0, 55)])
    flushed = line.flush(1)
    outputs = [flushed, line.feed(2, [sound(55, 300)]), line.flush(3), line.flush(4)]
    blocks = segments(outputs)
    assert [(block.run, block.lead, block.frames) for block in blocks] == [(0, 0, 6), (1, 0, 20), (1, 15, 10)]
    assert [(block.start_us, block.stop_us) for block in blocks] == [(0, 55_000), (55_000, 255_000), (255_000, 355_000)]
    assert flushed.held.samples == 0


def test_too_short_a_block_is_reported() -> None:
    outputs = fed(timeline(), [sound(0, 220)])
    assert len(segments(outputs)) == 1
    assert lost(outputs) == [("audio", "short", 20)]
    assert len(segments(fed(timeline(), [sound(0, 221)]))) == 2


@pytest.mark.parametrize(("shift_ms", "runs"), [(100, [0, 0]), (-100, [0, 0]), (101, [0, 1]), (-101, [0, 1])])
def test_a_gap_or_an_overlap_of_more_than_100_ms_ends_the_run(shift_ms: int, runs: list[int]) -> None:
    outputs = fed(timeline(), [sound(0, 150), sound(150 + shift_ms, 150)])
    blocks = segments(outputs)
    assert [block.run for block in blocks] == runs
    assert sum(len(body(block)) for block in blocks) == 300
    if runs == [0, 1]:
        assert blocks[1].start_us == (150 + shift_ms) * 1000
        assert blocks[1].lead == 0


def test_with_a_lateness_no_moment_is_heard_twice() -> None:
    whole = [sound(0, 400), sound(200, 400), sound(600, 300)]
    outputs = fed(timeline(lateness_us=1000), list(whole))
    joined = np.concatenate([body(block) for block in segments(outputs)])
    assert np.array_equal(joined, np.arange(900, dtype=np.float32))
    assert lost(outputs) == [("audio", "late", 200)]
    finer = [whole[0], *cut(whole[1], [130, 170, 200, 320]), whole[2]]
    assert faces(fed(timeline(lateness_us=1000), finer)) == faces(outputs)


def test_quiet_then_loud_passes_unchanged() -> None:
    quiet = np.full((1, 200), 1e-6, np.float32)
    loud = np.linspace(-1, 1, 200, dtype=np.float32)[None]
    outputs = fed(timeline(), [Samples(quiet, RATE, 0), Samples(loud, RATE, 200_000)])
    assert [body(block).tobytes() for block in segments(outputs)] == [quiet.tobytes(), loud.tobytes()]


def test_a_change_of_channels_does_not_end_the_run() -> None:
    stereo = Samples(np.repeat(sound(100, 200).samples, 2, axis=0), RATE, 100_000)
    (block, rest) = segments(fed(timeline(), [sound(0, 100), stereo]))
    assert (block.run, rest.run, rest.lead) == (0, 0, 15)
    assert np.array_equal(np.concatenate([body(block), body(rest)]), np.arange(300, dtype=np.float32))


@given(CUTS, st.sampled_from([8000, 16_000, 44_100, 48_000]))
def test_the_real_resampler_gives_the_same_blocks_for_any_cuts(places: list[int], rate: int) -> None:
    values = np.random.default_rng(rate).uniform(-1, 1, (2, rate)).astype(np.float32)
    borders = [0, *sorted({place * rate // 1000 for place in places}), rate]
    pieces = [
        Samples(values[:, first:last], rate, first * 1_000_000 // rate)
        for first, last in zip(borders, borders[1:], strict=False)
    ]
    spec = SPEC.__class__(audio_rate=16_000, block_samples=4800)
    whole = fed(Timeline(spec), [Samples(values, rate, 0)])
    assert faces(fed(Timeline(spec), list(pieces))) == faces(whole)
    assert abs(sum(len(body(block, spec)) for block in segments(whole)) - 16_000) <= 480
