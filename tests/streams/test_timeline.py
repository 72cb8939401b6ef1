"""The law of the timeline: segments depend on the media and their times, not on how or in which order they arrived."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Frame, Pixels, Samples
from penstock.errors import InputError, LimitError
from penstock.streams import order as order_module
from penstock.streams.segment import AudioSegment, ImageSegment, MediaSpec, SizeRule, VideoSegment
from penstock.streams.timeline import Timeline

from tests.streams.streamed import (
    RATE,
    SPEC,
    body,
    cut,
    face,
    faces,
    fed,
    lost,
    picture,
    segments,
    shown,
    sound,
    timeline,
)

TIMES = st.lists(st.integers(0, 1500), min_size=1, max_size=25, unique=True).map(sorted)
RUNS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 500)), min_size=1, max_size=3)
UNITS = st.booleans()


def media(times: list[int], runs: list[tuple[int, int]]) -> tuple[list[Pixels], list[Samples]]:
    """Frames at `times`, and sounds of given gaps and lengths, all in milliseconds; some sources change their size."""
    frames = [picture(ms * 1000, 8, 12 if ms % 700 < 500 else 8) for ms in times]
    sounds, at = [], -50
    for gap, count in runs:
        sounds.append(sound(at + gap, count))
        at += gap + count
    return frames, sounds


def in_order(frames: list[Pixels], sounds: list[Samples]) -> list[Frame]:
    """Picture by picture and sample by sample in the order of time."""
    singles = [piece for whole in sounds for piece in cut(whole, list(range(1, whole.samples.shape[1])))]
    return sorted([*frames, *singles], key=lambda frame: (frame.pts_us, isinstance(frame, Samples)))


@given(st.data(), TIMES, RUNS, UNITS, st.integers(1, 400))
def test_cuts_and_order_of_arrival_inside_the_lateness_do_not_matter(
    data: st.DataObject, times: list[int], runs: list[tuple[int, int]], units: bool, lateness_ms: int
) -> None:
    frames, sounds = media(times, runs)
    options: dict[str, Any] = {"audio_in_video": units, "lateness_us": lateness_ms * 1000}
    expected = fed(timeline(**options), in_order(frames, sounds))
    pieces: list[Frame] = [*frames]
    for whole in sounds:
        pieces += cut(whole, data.draw(st.lists(st.integers(1, 500), max_size=8)))
    delays = data.draw(st.lists(st.integers(0, lateness_ms - 1), min_size=len(pieces), max_size=len(pieces)))
    arriving = [frame for _, frame in sorted(zip(delays, pieces, strict=True), key=lambda p: p[0] * 1000 + p[1].pts_us)]
    line, outputs, at, seq = timeline(**options), [], 0, 0
    while at < len(arriving):
        count = data.draw(st.integers(1, 6))
        outputs.append(line.feed(seq, arriving[at : at + count]))
        at += count
        seq += data.draw(st.integers(0, 1))
    outputs.append(line.flush(seq))
    assert faces(outputs) == faces(expected)
    assert sorted(lost_total(outputs).items()) == sorted(lost_total(expected).items())
    numbers = [(segment.seq, segment.index) for segment in segments(outputs)]
    assert numbers == sorted(set(numbers))
    assert all(index == 0 or (seq, index - 1) in numbers for seq, index in numbers)


def lost_total(outputs: list[Any]) -> dict[tuple[str, str], int]:
    total: dict[tuple[str, str], int] = {}
    for modality, reason, count in lost(outputs):
        total[modality, reason] = total.get((modality, reason), 0) + count
    return total


@given(st.data(), TIMES, RUNS, UNITS)
def test_without_a_lateness_only_the_order_of_arrival_counts(
    data: st.DataObject, times: list[int], runs: list[tuple[int, int]], units: bool
) -> None:
    frames, sounds = media(times, runs)
    places = data.draw(st.lists(st.integers(0, len(sounds)), min_size=len(frames), max_size=len(frames)).map(sorted))
    whole: list[Frame] = []
    fine: list[Frame] = []
    for number in range(len(sounds) + 1):
        here = [frame for frame, place in zip(frames, places, strict=True) if place == number]
        last = sounds[number : number + 1]
        whole += [*here, *last]
        fine += here
        for piece in last:
            fine += cut(piece, data.draw(st.lists(st.integers(1, 500), max_size=8)))
    one = timeline(audio_in_video=units)
    outputs = [one.feed(0, whole), one.flush(1)]
    assert faces(fed(timeline(audio_in_video=units), fine)) == faces(outputs)


@given(st.data(), TIMES, RUNS, UNITS, st.sampled_from([0, 50_000]))
def test_what_is_out_depends_on_what_came_before_it_only(
    data: st.DataObject, times: list[int], runs: list[tuple[int, int]], units: bool, lateness_us: int
) -> None:
    frames, sounds = media(times, runs)
    arriving = sorted([*frames, *sounds], key=lambda frame: frame.pts_us)
    border = data.draw(st.integers(0, len(arriving)))
    other = [Pixels(255 - f.pixels, f.pts_us) if isinstance(f, Pixels) else f for f in arriving[border:]]
    lines = [timeline(audio_in_video=units, lateness_us=lateness_us) for _ in range(2)]
    kept = fed(lines[0], arriving[:border], flush=False)
    when_out = faces(kept)
    fed(lines[0], list(arriving[border:]))
    assert faces(kept) == when_out
    assert faces(fed(lines[1], [*arriving[:border], *other], flush=False)[:border]) == when_out


@given(TIMES, RUNS, st.sampled_from([0, 80_000]))
def test_no_sample_and_no_tick_is_lost(times: list[int], runs: list[tuple[int, int]], lateness_us: int) -> None:
    frames, sounds = media(times, runs)
    outputs = fed(
        timeline(lateness_us=lateness_us), [*frames, *sounds] if not lateness_us else in_order(frames, sounds)
    )
    blocks = [segment for segment in segments(outputs) if isinstance(segment, AudioSegment)]
    total = sum(whole.samples.shape[1] for whole in sounds)
    assert sum(len(body(block)) for block in blocks) + lost_total(outputs).get(("audio", "short"), 0) == total
    for number in {block.run for block in blocks}:
        run = [block for block in blocks if block.run == number]
        assert all(before.stop_us == after.start_us for before, after in zip(run, run[1:], strict=False))
        assert [block.lead for block in run] == [0, *[SPEC.lead_samples] * (len(run) - 1)]
    # Each tick up to the newest frame is in one patch, in order; a run's end may repeat a frame once.
    seen = [ms for segment in segments(outputs) if isinstance(segment, VideoSegment) for ms in shown(segment.pixels)]
    ticks = [min(times, key=lambda ms: (abs(tick - ms), ms)) for tick in range(times[0], times[-1] + 1, 50)]
    behind = iter(seen)
    assert all(tick in behind for tick in ticks)


def test_pictures_and_sound_come_out_as_they_are_complete() -> None:
    frames: list[Frame] = [picture(0), picture(50_000), sound(0, 300), picture(100_000), picture(150_000)]
    kinds = [type(segment) for segment in segments(fed(timeline(), frames))]
    assert kinds == [VideoSegment, AudioSegment, VideoSegment, AudioSegment]
    # By media time the block of 200 ms, its look-ahead and the delay of the resampler come last.
    later = [type(segment) for segment in segments(fed(timeline(lateness_us=500_000), frames))]
    assert later == [VideoSegment, VideoSegment, AudioSegment, AudioSegment]


def test_a_picture_comes_before_the_sample_of_its_time() -> None:
    # The block is complete with the sample at 211 ms, the pairs with the picture of the same time.
    frames = [sound(0, 250), picture(211_000), picture(0)]
    kinds = [type(segment) for segment in segments(fed(timeline(lateness_us=500_000), frames))]
    assert kinds == [VideoSegment, VideoSegment, AudioSegment, VideoSegment, AudioSegment]


def test_the_lateness_holds_back_no_longer_than_it_must() -> None:
    line = timeline(lateness_us=100_000)
    outputs = [line.feed(seq, [picture(ms * 1000)]) for seq, ms in enumerate([0, 50, 150, 151])]
    assert [len(output.segments) for output in outputs] == [0, 0, 0, 1]
    assert [output.held.frames for output in outputs] == [1, 2, 3, 2]
    assert outputs[-1].segments[0].seq == 3


def test_what_waits_for_its_order_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded frames are large; the one that is too much is refused, and the others keep their places."""
    size = picture(0).pixels.nbytes
    monkeypatch.setattr(order_module, "_MOST_HELD_BYTES", 3 * size)
    line = timeline(lateness_us=60_000_000)
    for seq in range(3):
        line.feed(seq, [picture(seq * 1000)])
    with pytest.raises(LimitError, match=rf"expected at most {3 * size} bytes .* got {4 * size}"):
        line.feed(3, [picture(3000)])
    assert line.flush(4).held.frames == 0
    assert timeline().feed(1, [picture(ms * 1000) for ms in range(9)]).held.frames <= 1


def test_older_than_what_went_out_is_late() -> None:
    line = timeline(lateness_us=100_000)
    outputs = fed(line, [picture(0), picture(50_000), picture(100_000), picture(300_000), picture(70_000)])
    assert lost(outputs) == [("video", "late", 1)]
    assert [drop.seq for output in outputs for drop in output.dropped] == [4]


def test_an_image_goes_in_at_the_models_size() -> None:
    big = np.arange(40 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 40, 3)
    (segment,) = timeline().image(1, big, 30_000).segments
    assert isinstance(segment, ImageSegment)
    assert (segment.seq, segment.index, segment.start_us, segment.pixels.shape) == (1, 0, 30_000, (20, 20, 3))


def test_an_image_comes_behind_what_waits_for_its_order() -> None:
    line = timeline(lateness_us=1_000_000)
    line.feed(0, [picture(50_000), picture(0)])
    image = line.image(1, picture(0).pixels)
    assert [type(segment) for segment in image.segments] == [VideoSegment, ImageSegment]
    assert [(segment.seq, segment.index) for segment in image.segments] == [(1, 0), (1, 1)]
    assert image.segments[1].start_us is None


def test_the_index_goes_on_over_calls_with_one_number() -> None:
    line = timeline()
    outputs = [line.feed(7, [picture(0), picture(50_000)]), line.feed(7, [picture(100_000), picture(150_000)])]
    outputs += [line.feed(8, [picture(200_000), picture(250_000)])]
    assert [(segment.seq, segment.index) for segment in segments(outputs)] == [(7, 0), (7, 1), (8, 0)]


def test_a_modality_that_the_model_lacks_is_refused_and_nothing_is_taken() -> None:
    line = timeline(spec=MediaSpec(video=SizeRule(4, 64, 256), video_fps=20.0))
    with pytest.raises(InputError, match=r"\(text, video\), got audio"):
        line.feed(0, [picture(0), sound(0, 10)])
    with pytest.raises(InputError, match=r"\(text, video\), got image"):
        line.image(0, picture(0).pixels)
    with pytest.raises(InputError, match="at most 200"):
        line.feed(0, [picture(0), picture(1000, 1, 300)])
    assert line.flush(1).segments == []
    deaf = timeline(spec=MediaSpec(audio_rate=RATE))
    with pytest.raises(InputError, match=r"\(text, audio\), got video"):
        deaf.feed(0, [picture(0)])


@given(st.lists(st.integers(1, 3 * 44_100), max_size=20), st.booleans(), st.integers(1, 400))
def test_the_law_holds_with_the_real_codecs_at_the_models_own_numbers(
    places: list[int], units: bool, late_ms: int
) -> None:
    spec = MediaSpec(video=SizeRule(28, 784, 2 * 784), audio_rate=16_000)
    draw = np.random.default_rng(5)
    frames = [
        Pixels(draw.integers(0, 256, (40, 60, 3), dtype=np.uint8), round(index * 1e6 / 30)) for index in range(90)
    ]
    values = draw.uniform(-1, 1, (2, 3 * 44_100)).astype(np.float32)

    def sounds(borders: list[int]) -> list[Samples]:
        ends = [*sorted({border for border in borders if border < values.shape[1]}), values.shape[1]]
        pairs = zip([0, *ends], ends, strict=False)
        return [Samples(values[:, first:last], 44_100, first * 1_000_000 // 44_100) for first, last in pairs]

    def line() -> Timeline:
        return Timeline(spec, audio_in_video=units, lateness_us=late_ms * 1000)

    expected = fed(line(), sorted([*frames, *sounds(list(range(882, 3 * 44_100, 882)))], key=lambda f: f.pts_us))
    reordered = sorted(
        [*frames, *sounds(places)], key=lambda f: f.pts_us + (f.pts_us % 7919) * (late_ms - 1) * 1000 // 7919
    )
    outputs = fed(line(), reordered)
    assert faces(outputs) == faces(expected)
    assert len(segments(outputs)) == (2 if units else 5)


def test_the_real_resize_is_used_by_default() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    (segment,) = segments(fed(Timeline(SPEC), [Pixels(pixels, 0)]))
    from penstock.codecs.resize import resize

    assert face(segment)[3] == (2, 12, 16, 3)  # type: ignore[index]
    assert np.array_equal(segment.pixels[0], resize(pixels, 12, 16))
