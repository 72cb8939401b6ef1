"""The law of order: what is sent in an order goes out in that order, whatever waits for more of its kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Pixels, Samples
from penstock.streams.order import FrameSource
from penstock.streams.segment import AudioSegment, ImageSegment, VideoSegment

from tests.streams.streamed import RATE, faces, lost, picture, segments, shown, sound, timeline

UNTIMED = FrameSource(timed=False)
ITEMS = st.lists(st.sampled_from(["frame", "sound", "image", "words"]), min_size=1, max_size=12)


def marked(number: int) -> np.ndarray:
    """A picture whose pixels tell the number of its item."""
    return np.full((8, 12, 3), number, np.uint8)


@given(ITEMS, st.integers(30, 450), st.booleans())
def test_every_pair_of_kinds_stands_in_the_order_in_which_it_was_sent(kinds: list[str], count: int, own: bool) -> None:
    """Frames and sound whose times are not the client's own, or lie far apart (`own`)."""
    line, outputs, said = timeline(), [], []
    frame_us = heard = 0
    for number, kind in enumerate(kinds):
        apart_us = number * 5_000_000 if own else 0
        source = FrameSource() if own else UNTIMED
        if kind == "frame":
            outputs.append(line.feed(number, [Pixels(marked(number), frame_us + apart_us)], source))
            frame_us += 50_000
        elif kind == "sound":
            start_us = heard * 1_000_000 // RATE + apart_us
            outputs.append(
                line.feed(number, [Samples(np.full((1, count), number, np.float32), RATE, start_us)], source)
            )
            heard += count
        elif kind == "image":
            outputs.append(line.image(number, marked(number)))
        else:
            outputs.append(line.flush(number))
    outputs.append(line.flush(len(kinds)))
    for segment in segments(outputs):
        if isinstance(segment, AudioSegment):
            values = segment.samples[segment.lead : segment.lead + segment.frames * 10]
            said += [int(value) for value in values]
        else:
            said += [int(frame.flat[0]) for frame in segment.pixels.reshape(-1, 8 * 12 * 3)]
    assert said == sorted(said)
    missing = {number for number, kind in enumerate(kinds) if kind != "words"} - set(said)
    short = sum(number for _, reason, number in lost(outputs) if reason == "short")
    assert all(kinds[number] == "sound" for number in missing) and (short > 0 or not missing)


def test_a_camera_and_a_microphone_go_on_side_by_side() -> None:
    """Both have their own times, on one clock: neither cuts the other."""
    line, outputs = timeline(), []
    for ms in range(0, 800, 10):
        outputs.append(line.feed(ms, [sound(ms, 10)]))
        if ms % 50 == 0:
            outputs.append(line.feed(ms, [picture(ms * 1000)]))
    told = [
        (type(segment).__name__, segment.start_us // 1000, segment.stop_us // 1000) for segment in segments(outputs)
    ]
    assert [entry for entry in told if entry[0] == "VideoSegment"] == [
        ("VideoSegment", ms, ms + 50) for ms in range(0, 800, 100)
    ]
    assert [entry for entry in told if entry[0] == "AudioSegment"] == [
        ("AudioSegment", ms, ms + 200) for ms in range(0, 600, 200)
    ]


def test_the_tracks_of_one_file_do_not_cut_each_other_however_far_apart_they_come() -> None:
    line, film = timeline(), FrameSource("film")
    outputs = [line.feed(0, [picture(ms * 1000) for ms in (0, 50, 100)], film)]
    outputs += [line.feed(1, [sound(0, 1800)], film), line.feed(2, [picture(150_000)], film)]
    pairs = [shown(segment.pixels) for segment in segments(outputs) if isinstance(segment, VideoSegment)]
    assert pairs == [[0, 50], [100, 150]]


def test_sound_that_has_stopped_stands_before_the_pictures_behind_it() -> None:
    line = timeline()
    outputs = [line.feed(0, [sound(0, 60)]), *(line.feed(1, [picture(ms * 1000)]) for ms in (450, 500, 550, 600))]
    assert [type(segment) for segment in segments(outputs)] == [AudioSegment, VideoSegment, VideoSegment]


@given(st.lists(st.integers(1, 900), max_size=5))
def test_a_frame_that_waits_goes_out_at_the_same_place_however_the_sound_is_cut(places: list[int]) -> None:
    def played(borders: list[int]) -> list:
        line, outputs = timeline(), [timeline().flush(0)]
        outputs.append(line.feed(0, [sound(0, 20), picture(10_000)]))
        for first, last in zip([0, *borders], [*borders, 900], strict=True):
            outputs.append(line.feed(1, [sound(20 + first, last - first)]))
        return faces([*outputs, line.flush(2)])

    assert played(sorted({place for place in places if place < 900})) == played([])


def test_an_image_lets_out_what_waits() -> None:
    line = timeline()
    line.feed(0, [picture(0), sound(0, 100)])
    image = line.image(1, marked(9), 30_000)
    assert [type(segment) for segment in image.segments] == [VideoSegment, AudioSegment, ImageSegment]
    assert [(segment.seq, segment.index) for segment in image.segments] == [(1, 0), (1, 1), (1, 2)]
    assert (image.held.frames, image.held.samples) == (0, 0)


@pytest.mark.parametrize("back_ms", [1, 20, 700, 3_600_000])
def test_a_camera_whose_clock_is_set_back_is_seen_at_its_next_frame(back_ms: int) -> None:
    times = [5_000, 5_050, 5_100, 5_150]
    later = [5_150 - back_ms + step for step in (0, 50, 100, 150)]
    line = timeline()
    outputs = [line.feed(seq, [Pixels(marked(seq), ms * 1000)]) for seq, ms in enumerate(times + later)]
    seen = [segment.pixels[:, 0, 0, 0].tolist() for segment in segments([*outputs, line.flush(9)])]
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7]] and lost(outputs) == []


@pytest.mark.parametrize("far_us", [1_000_000_000, 1 << 53])
def test_one_time_far_ahead_blinds_nobody(far_us: int) -> None:
    line = timeline()
    outputs = [line.feed(seq, [picture(us)]) for seq, us in enumerate([0, 50_000, far_us, 100_000, 150_000])]
    assert [shown(segment.pixels) for segment in segments(outputs)][::2] == [[0, 50], [100, 150]]
    assert lost(outputs) == []


@pytest.mark.parametrize("units", [False, True])
def test_with_a_lateness_the_second_frame_behind_it_says_that_the_clock_was_set_back(units: bool) -> None:
    line = timeline(lateness_us=100_000, audio_in_video=units)
    back = [picture(ms * 1000) for ms in range(0, 1000, 50)]
    outputs = [
        line.feed(0, [picture(us * 1000) for us in range(60_000, 61_000, 50)]),
        line.feed(1, back),
        line.flush(2),
    ]
    seen = [ms for segment in segments(outputs) for ms in shown(segment.pixels)]
    assert seen == [*range(60_000, 61_000, 50), *range(50, 1000, 50), 950]
    assert lost(outputs) == [("video", "late", 1)]


def test_a_clock_that_is_set_back_begins_units_anew() -> None:
    line = timeline(audio_in_video=True)
    outputs = []
    for start in (50_000, 7_000):
        for ms in range(start, start + 400, 50):
            outputs += [line.feed(0, [picture(ms * 1000)]), line.feed(0, [sound(ms, 50)])]
    found = segments([*outputs, line.flush(1)])
    assert [(unit.start_us // 1000, unit.stop_us // 1000) for unit in found] == [
        (50_000, 50_200), (50_200, 50_400), (7_000, 7_200), (7_200, 7_400)
    ]  # fmt: skip
    assert lost(outputs) == []
