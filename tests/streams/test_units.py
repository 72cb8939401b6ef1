"""Units of a video and its sound: 200 ms here, four ticks and one block."""

from __future__ import annotations

import numpy as np
import pytest
from penstock.codecs.frame import Frame, Pixels, Samples
from penstock.errors import InputError
from penstock.streams.segment import MediaSpec, SizeRule, UnitSegment

from tests.streams.streamed import SPEC, body, cut, faces, fed, lost, picture, segments, shown, sound, timeline


def video(first_ms: int, last_ms: int, step_ms: int = 50) -> list[Pixels]:
    return [picture(ms * 1000) for ms in range(first_ms, last_ms, step_ms)]


def merged(*media: list[Frame]) -> list[Frame]:
    """In order of time, pictures before sound."""
    return sorted((frame for part in media for frame in part), key=lambda f: (f.pts_us, isinstance(f, Samples)))


def units(frames: list[Frame], **options: int) -> list[UnitSegment]:
    return segments(fed(timeline(audio_in_video=True, **options), frames))


def heard(unit: UnitSegment) -> tuple[int, int] | None:
    """First and last sample of a unit's block; the samples tell their times."""
    return None if unit.audio is None else (int(body(unit.audio)[0]), int(body(unit.audio)[-1]))


def test_each_unit_has_its_pictures_and_its_sound() -> None:
    frames = merged(list(video(0, 700)), list(cut(sound(0, 700), list(range(20, 700, 20)))))
    got = units(frames)
    assert [shown(unit.pixels) for unit in got] == [
        [0, 50, 100, 150],
        [200, 250, 300, 350],
        [400, 450, 500, 550],
        [600, 650],
    ]
    assert [heard(unit) for unit in got] == [(0, 199), (200, 399), (400, 599), (600, 699)]
    audio = [unit.audio for unit in got if unit.audio is not None]
    assert [(block.run, block.lead, len(block.samples)) for block in audio] == [
        (0, 0, 205),
        (0, 15, 220),
        (0, 15, 220),
        (0, 15, 115),
    ]
    assert [(unit.start_us, unit.stop_us) for unit in got][:2] == [(0, 200_000), (200_000, 400_000)]


def test_a_unit_waits_for_its_sound_and_its_look_ahead() -> None:
    line = timeline(audio_in_video=True)
    assert line.feed(0, video(0, 200)).segments == []
    assert line.feed(1, [sound(0, 211)]).segments == []
    assert [type(s) for s in line.feed(2, [sound(211, 1)]).segments] == [UnitSegment]
    # Sound ahead of its pictures waits as well.
    assert line.feed(3, [sound(212, 300)]).segments == []
    assert line.feed(4, video(200, 350)).segments == []
    (unit,) = line.feed(5, [picture(350_000)]).segments
    assert isinstance(unit, UnitSegment) and unit.audio is not None
    assert (unit.seq, unit.index, unit.audio.seq, unit.audio.index) == (5, 0, 5, 0)


def test_the_newest_frames_behind_the_last_tick_are_not_late() -> None:
    line = timeline(audio_in_video=True)
    line.feed(0, [sound(0, 300)])
    assert len(line.feed(1, video(0, 200)).segments) == 1
    outputs = [line.feed(2, [picture(180_000)]), line.feed(3, [picture(195_000)]), line.feed(4, [picture(230_000)])]
    assert lost(outputs) == []
    (unit,) = line.flush(5).segments
    assert isinstance(unit, UnitSegment) and shown(unit.pixels) == [195, 230]


def test_sound_before_the_first_frame_is_late() -> None:
    outputs = fed(timeline(audio_in_video=True), [sound(-100, 150), *video(0, 200), sound(50, 200)])
    assert lost(outputs) == [("audio", "late", 100)]
    first, second = segments(outputs)
    assert (heard(first), heard(second)) == ((0, 199), (200, 249))
    assert shown(second.pixels) == [150, 150]  # no picture of its own


def test_sound_before_any_frame_is_kept_for_one_unit() -> None:
    line = timeline(audio_in_video=True)
    outputs = [line.feed(0, [sound(0, 150)]), line.feed(1, [sound(150, 150)])]
    assert lost(outputs) == [("audio", "late", 100)]
    assert outputs[-1].held.samples == 200
    assert lost([line.flush(2)]) == [("audio", "late", 200)]


def test_missing_sound_is_absent() -> None:
    got = units(list(video(0, 1000)))
    assert [heard(unit) for unit in got] == [None] * 5
    line = timeline(audio_in_video=True)
    outputs = fed(line, list(video(0, 650)), flush=False)
    # The first unit ends at 200 ms; one more unit and anything beyond it closes it.
    assert [len(output.segments) for output in outputs] == [0] * 9 + [1, 0, 0, 0]


def test_late_sound_is_dropped_and_reported() -> None:
    line = timeline(audio_in_video=True)
    outputs = fed(line, [sound(0, 100), *video(0, 500), sound(100, 200), picture(500_000), sound(300, 120)])
    assert [heard(unit) for unit in segments(outputs)] == [(0, 99), (200, 399), None]
    assert lost(outputs) == [("audio", "late", 100), ("audio", "short", 20)]
    assert [unit.audio.run for unit in segments(outputs)[:2]] == [0, 1]


def test_lateness_makes_units_wait_longer() -> None:
    frames = [sound(0, 100), *video(0, 850), sound(100, 200)]
    got = units(frames, lateness_us=300_000)
    assert [heard(unit) for unit in got] == [(0, 199), (200, 299), None, None, None]
    assert [heard(unit) for unit in units(frames)] == [(0, 99), None, None, None, None]


def test_missing_pictures_repeat_the_newest_before() -> None:
    line = timeline(audio_in_video=True)
    frames: list[Frame] = [*video(0, 200), sound(0, 900), picture(420_000), picture(850_000), sound(900, 200)]
    outputs = fed(line, frames)
    assert [(shown(unit.pixels), heard(unit)) for unit in segments(outputs)] == [
        ([0, 50, 100, 150], (0, 199)),
        ([150, 150], (200, 399)),
        ([150, 150], (400, 599)),
        ([420, 850, 850, 850], (600, 799)),
        ([850, 850], (800, 999)),
        ([850, 850], (1000, 1099)),
    ]
    assert lost(outputs) == []


def test_a_late_picture_is_reported() -> None:
    line = timeline(audio_in_video=True)
    outputs = fed(line, [*video(0, 200), sound(0, 700), picture(255_000), picture(410_000), sound(700, 10)])
    assert lost(outputs) == [("video", "late", 1)]
    assert [shown(unit.pixels) for unit in segments(outputs)][:3] == [[0, 50, 100, 150], [150, 150], [410, 410]]


def test_a_flush_gives_the_open_unit_and_the_rest_follows() -> None:
    line = timeline(audio_in_video=True)
    media = merged(list(video(0, 500)), list(cut(sound(0, 500), list(range(20, 500, 20)))))
    asked = [frame for frame in media if frame.pts_us < 300_000]
    outputs = fed(line, asked)
    outputs += [line.feed(100, [frame for frame in media if frame.pts_us >= 300_000]), line.flush(101)]
    got = segments(outputs)
    assert [shown(unit.pixels) for unit in got] == [[0, 50, 100, 150], [200, 250], [300, 350], [400, 450]]
    assert [heard(unit) for unit in got] == [(0, 199), (200, 299), (300, 399), (400, 499)]
    assert [(unit.audio.run, unit.audio.lead) for unit in got] == [(0, 0), (0, 15), (1, 0), (1, 15)]


def test_a_gap_inside_a_unit_is_silence_and_one_across_a_border_ends_the_run() -> None:
    inside = units(merged(list(video(0, 400)), [sound(0, 50), sound(160, 240)]))
    assert inside[0].audio is not None and inside[1].audio is not None
    values = body(inside[0].audio)
    assert np.array_equal(values[:50], np.arange(50)) and not values[50:160].any()
    assert np.array_equal(values[160:], np.arange(160, 200))
    assert [unit.audio.run for unit in inside if unit.audio] == [0, 0]
    across = units(merged(list(video(0, 400)), [sound(0, 120), sound(260, 140)]))
    assert [heard(unit) for unit in across] == [(0, 119), (260, 399)]
    assert [unit.audio.run for unit in across if unit.audio] == [0, 1]


def test_a_run_that_starts_inside_a_unit_ends_at_its_border() -> None:
    got = units(merged(list(video(0, 600)), list(cut(sound(33, 567, origin_ms=33), [100, 200, 300]))))
    frames = [unit.audio.frames for unit in got if unit.audio]
    # 167 samples are left of the first unit: 17 whole frames, 3 ms over the border.
    assert frames == [17, 20, 20]
    joined = np.concatenate([body(unit.audio) for unit in got if unit.audio])
    assert np.array_equal(joined, np.arange(567, dtype=np.float32))


def test_a_new_source_size_counts_from_the_next_unit_on() -> None:
    frames = [*video(0, 100), *[picture(ms * 1000, 16, 8) for ms in range(100, 400, 50)]]
    assert [unit.pixels.shape for unit in units(list(frames))] == [(4, 8, 12, 3), (4, 16, 8, 3)]


def test_a_time_far_away_costs_nothing() -> None:
    frames: list[Frame] = [*video(0, 200), sound(0, 200), picture(10**15), sound(10**12, 100)]
    assert [heard(unit) is not None for unit in units(frames)] == [True, True]


def test_refuses_what_makes_no_unit() -> None:
    with pytest.raises(InputError, match="at least 10, got 9.5"):
        timeline(audio_in_video=True, video_fps=9.5)
    with pytest.raises(InputError, match="takes sound"):
        timeline(spec=MediaSpec(video=SizeRule(4, 16, 400)), audio_in_video=True)
    with pytest.raises(InputError, match="takes video, got one for text, audio"):
        timeline(spec=MediaSpec(audio_rate=1000), audio_in_video=True)
    assert timeline(audio_in_video=True, video_fps=10.0).flush(0).segments == []


def test_cuts_of_sound_do_not_matter() -> None:
    whole = sound(-30, 700)
    frames = list(video(0, 700))
    one = fed(timeline(audio_in_video=True, spec=SPEC), [frames[0], whole, *frames[1:]])
    many = fed(timeline(audio_in_video=True), [frames[0], *cut(whole, list(range(7, 700, 7))), *frames[1:]])
    assert faces(one) == faces(many)
