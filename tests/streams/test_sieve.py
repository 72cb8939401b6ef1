"""What is left out as nothing new: noise is, a change is not, however slow it is or small; and one piece goes in now
and then."""

from __future__ import annotations

import copy
import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Pixels, Samples
from penstock.errors import InputError
from penstock.streams.event import Dropped
from penstock.streams.requests.request import Request
from penstock.streams.segment import AudioSegment, DroppedSegment, MediaSpec, Segment, Sifted, SizeRule, VideoSegment
from penstock.streams.sieve import Demand, Sieve
from penstock.streams.size import fit
from penstock.streams.timeline import Timeline

SIDE = 64
EVERY_US = 5_000_000
Frames = list[np.ndarray]


def scene(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 220, (SIDE, SIDE, 3)).astype(np.uint8)


def noisy(picture: np.ndarray, seed: int) -> np.ndarray:
    """As a camera sees it once more."""
    noise = np.random.default_rng(seed).normal(0, 4, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def went_in(pieces: list[Sifted]) -> list[Sifted]:
    return [piece for piece in pieces if not isinstance(piece, DroppedSegment)]


def sifted(frames: Frames, every_us: int = EVERY_US, step_us: int = 500_000) -> tuple[list[int], list[Dropped]]:
    """The numbers of the frames that went in, each a piece of its own, and the notices."""
    still, kept, dropped = Sieve(1000, every_us), [], []
    for number, frame in enumerate(frames):
        piece = VideoSegment(0, 0, frame[None], number * step_us, number * step_us)
        through, notices = still.sift([piece], number)
        kept += [number for _ in went_in(through)]
        dropped += notices
    return kept, dropped


def test_noise_shows_nothing_new() -> None:
    kept, dropped = sifted([noisy(scene(), seed) for seed in range(10)])
    assert kept == [0]
    assert [(one.seq, one.modality, one.count, one.reason) for one in dropped] == [
        (number, "video", 1, "still") for number in range(1, 10)
    ]


def test_one_piece_goes_in_now_and_then() -> None:
    kept, _ = sifted([scene()] * 25)
    assert kept == [0, 10, 20]


@given(st.integers(0, SIDE - 8), st.integers(0, SIDE - 8), st.integers(0, 2))
def test_a_small_thing_anywhere_and_of_any_colour_is_new(row: int, column: int, colour: int) -> None:
    picture = np.full((SIDE, SIDE, 3), 100, np.uint8)
    changed = picture.copy()
    changed[row : row + 8, column : column + 8, colour] = 160
    assert sifted([picture, noisy(picture, 1), noisy(changed, 2), noisy(changed, 3), noisy(picture, 4)])[0] == [0, 2, 4]


def test_a_change_that_is_too_slow_to_see_from_frame_to_frame_goes_in() -> None:
    """Two levels a frame: against the frame before it each shows nothing new."""
    kept, _ = sifted([np.full((SIDE, SIDE, 3), 20 + 2 * number, np.uint8) for number in range(60)], every_us=10**12)
    assert kept == list(range(0, 60, 6))


def test_another_size_and_a_clock_that_is_set_back_are_new() -> None:
    still = Sieve(1000, EVERY_US)
    pieces = [
        VideoSegment(0, 0, np.zeros((2, 8, 8, 3), np.uint8), 1_000_000, 1_500_000),
        VideoSegment(0, 1, np.zeros((2, 8, 12, 3), np.uint8), 2_000_000, 2_500_000),
        VideoSegment(0, 2, np.zeros((2, 8, 12, 3), np.uint8), 100_000, 600_000),
        VideoSegment(0, 3, np.zeros((2, 8, 12, 3), np.uint8), 700_000, 1_200_000),
    ]
    assert went_in(still.sift(pieces, 7)[0]) == pieces[:3]


@given(st.integers(1, 11), st.integers(1, 11))
def test_cells_of_sides_that_do_not_fit_have_all_pixels(height: int, width: int) -> None:
    """Cells at the edge have up to seven pixels a side: a line that changes shows in them too."""
    black = np.zeros((1, height, width, 3), np.uint8)
    for row in range(height):
        changed = black.copy()
        changed[0, row] = 255
        pieces: list[Segment] = [VideoSegment(0, 0, pixels, 0, 0) for pixels in (black, changed)]
        assert len(went_in(Sieve(1000, EVERY_US).sift(pieces, 0)[0])) == 2


@pytest.mark.parametrize(("loud", "kept"), [(0.0, [0, 5]), (0.001, [0, 5]), (0.2, [0, 2])])
def test_sound_that_is_silent_is_left_out(loud: float, kept: list[int]) -> None:
    """Blocks of a second; in one of them 30 ms sound. What stands before a block, its lead, is not its own."""
    still, through = Sieve(1000, EVERY_US), []
    for number in range(6):
        samples = np.random.default_rng(number).normal(0, 1e-4, 1000).astype(np.float32)
        if number == 2:
            samples[300:330] += loud
        lead = np.full(15, 0.5, np.float32)
        block = AudioSegment(0, 0, np.concatenate([lead, samples]), 15, 100, 0, number * 10**6, (number + 1) * 10**6)
        through += [number for _ in went_in(still.sift([block], 0)[0])]
    assert through == kept


SPEC = MediaSpec(
    video=SizeRule(4, 64, 4096), image=SizeRule(4, 64, 4096), audio_rate=1000, hop_samples=10, block_samples=200,
    lead_samples=15, look_ahead_samples=5,
)  # fmt: skip


def test_a_timeline_leaves_out_pieces_and_numbers_the_others() -> None:
    """Of ten pairs of one scene the first goes in, then the first of another scene; images always do. The others keep
    their places among them."""
    line = Timeline(SPEC, video_fps=2.0, still_us=60_000_000)
    frames = [Pixels(noisy(scene(number // 20), number), number * 500_000) for number in range(40)]
    outputs = [line.feed(number // 8, [frame]) for number, frame in enumerate(frames)]
    outputs += [line.image(5, scene()), line.image(6, scene()), line.flush(7)]
    pieces = [piece for output in outputs for piece in output.pieces]
    kept = went_in(pieces)
    left_out = [notice for output in outputs for notice in output.dropped]
    assert [(type(one).__name__, one.seq, one.index) for one in kept] == [
        ("VideoSegment", 0, 0),
        ("VideoSegment", 2, 2),
        ("ImageSegment", 5, 0),
        ("ImageSegment", 6, 0),
    ]
    assert sum(notice.count for notice in left_out) == 40 - 4
    assert [type(one).__name__[0] for one in pieces] == [*"V", *"D" * 9, *"V", *"D" * 9, *"II"]
    assert {notice.reason for notice in left_out} == {"still"}


def test_without_the_option_nothing_is_left_out() -> None:
    line = Timeline(SPEC, video_fps=2.0)
    outputs = [line.feed(number, [Pixels(scene(), number * 500_000)]) for number in range(9)]
    silent = line.feed(9, [Samples(np.zeros((1, 1000), np.float32), 1000, 0)])
    assert sum(len(output.segments) for output in outputs) == 4
    assert silent.segments


@pytest.mark.parametrize("seconds", [0.0, -1.0, 4000.0, float("nan")])
def test_a_time_out_of_range_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match=r"drop_still: expected a number in \[0.1, 3600\]"):
        Request(drop_still=seconds).check()


SECOND_US = 1_000_000
IDLE_US = 3_500_000  # a piece in four seconds, less half a second


def by_rate(scenes: list[np.ndarray], demands: list[Demand]) -> tuple[list[int], list[int]]:
    """The numbers of the pieces, one a second, that go in and of those that do not, because of the rate."""
    sieve, kept, dropped = Sieve(1000, None, IDLE_US), [], []
    for number, (frame, demand) in enumerate(zip(scenes, demands, strict=True)):
        piece = VideoSegment(0, 0, frame[None], number * SECOND_US, number * SECOND_US)
        through, notices = sieve.sift([piece], number, demand)
        kept += [number for _ in went_in(through)]
        dropped += [one.seq for one in notices if one.reason == "rate"]
    return kept, dropped


def moving(number: int, seed: int = 0) -> np.ndarray:
    """A scene in which a thing moves on with each number."""
    picture = scene(seed)
    picture[20:30, 3 * number % 50 : 3 * number % 50 + 10] = 250
    return picture


def test_video_has_its_lower_rate_while_nothing_happens() -> None:
    """While something is asked all goes in, and for five seconds after another scene has come, as the first has."""
    shown = [moving(number, seed=number // 15) for number in range(30)]
    demands = [Demand.ASKED if number in (12, 13) else Demand.IDLE for number in range(30)]
    kept, dropped = by_rate(shown, demands)
    assert kept == [0, 1, 2, 3, 4, 8, 12, 13, 15, 16, 17, 18, 19, 23, 27]
    assert sorted(kept + dropped) == list(range(30))


def test_while_media_waits_too_long_nothing_but_the_lower_rate_goes_in() -> None:
    kept, _ = by_rate([moving(number, seed=number) for number in range(10)], [Demand.LOADED] * 10)
    assert kept == [0, 4, 8]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(Demand)), min_size=1, max_size=40))
def test_the_rate_stays_within_its_bounds(steps: list[tuple[int, Demand]]) -> None:
    """What is asked for goes in, and so does another scene, but under load. At least the lower rate always does."""
    demands = [demand for _, demand in steps]
    kept, dropped = by_rate([moving(number, seed) for number, (seed, _) in enumerate(steps)], demands)
    assert sorted(kept + dropped) == list(range(len(steps)))
    assert all(later - earlier <= 4 for earlier, later in itertools.pairwise([*kept, len(steps)]))
    assert not any(demands[number] is Demand.ASKED for number in dropped)
    for number in dropped:
        newest = max(one for one in kept if one < number)
        assert demands[number] is Demand.LOADED or steps[number][0] == steps[newest][0]


def test_both_rules_together_tell_which_it_was() -> None:
    """Of a scene that stands still nothing is new; one that moves has the lower rate."""
    sieve, reasons = Sieve(1000, 60_000_000, IDLE_US), []
    for number in range(16):
        frame = scene() if number < 8 else moving(number)
        piece = VideoSegment(0, 0, frame[None], number * SECOND_US, number * SECOND_US)
        reasons.append([notice.reason for notice in sieve.sift([piece], number)[1]])
    assert reasons == [[]] + [["still"]] * 7 + [[]] + [["rate"]] * 3 + [[]] + [["rate"]] * 3


def by_size(steps: list[tuple[int, Demand]], copied: int = -1) -> list[bool]:
    """Which pieces, one a second, go in at their full size; from number `copied` on, a copy of the sieve decides."""
    sieve, full = Sieve(1000, None), []
    for number, (seed, demand) in enumerate(steps):
        sieve = copy.deepcopy(sieve) if number == copied else sieve
        frames = moving(number, seed)[None]
        piece = VideoSegment(0, 0, frames, number * SECOND_US, number * SECOND_US, smaller=frames[:, ::2, ::2])
        (through,), dropped = sieve.sift([piece], number, demand)
        assert isinstance(through, VideoSegment) and through.smaller is None and not dropped
        full.append(through.pixels.shape == frames.shape)
    return full


def test_frames_are_smaller_while_nothing_happens() -> None:
    """For five seconds after another scene has come and after something was asked, they keep their full size."""
    demands = [Demand.ASKED if number in (12, 13) else Demand.IDLE for number in range(30)]
    full = by_size([(number // 22, demand) for number, demand in enumerate(demands)])
    assert [number for number, one in enumerate(full) if one] == [*range(5), *range(12, 18), *range(22, 27)]


def test_while_media_waits_too_long_frames_are_smaller_whatever_they_show() -> None:
    """And for five seconds after that, since a change of size would come again and again."""
    demands = [Demand.LOADED if number in (2, 3) else Demand.ASKED for number in range(10)]
    full = by_size(list(enumerate(demands)))
    assert [number for number, one in enumerate(full) if not one] == list(range(2, 8))


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(Demand)), min_size=1, max_size=40), st.integers(0, 39))
def test_sizes_follow_what_is_asked_and_change_seldom(steps: list[tuple[int, Demand]], copied: int) -> None:
    full = by_size(steps)
    assert by_size(steps, copied) == full
    for number, ((seed, demand), one) in enumerate(zip(steps, full, strict=True)):
        recent = steps[max(0, number - 4) : number + 1]
        if any(earlier is Demand.LOADED for _, earlier in recent):
            assert not one
        else:
            new = number < 5 or any(earlier != seed for earlier, _ in steps[number - 5 : number + 1])
            assert one == (new or any(earlier is Demand.ASKED for _, earlier in recent)) or demand is Demand.LOADED
    for number in range(1, len(full)):
        if full[number - 1] > full[number] and steps[number][1] is not Demand.LOADED:
            assert all(full[max(0, number - 5) : number])


@given(st.integers(1, 3), st.sampled_from([(64, 64), (40, 90), (33, 47)]), st.integers(64, 4096))
def test_smaller_frames_are_those_of_the_processor_with_these_pixels(
    patch: int, shape: tuple[int, int], most: int
) -> None:
    """With a bound on each frame, and with one for a patch of them."""
    for frames in (1, patch):
        rule = SizeRule(4, 64 * frames, 4096 * frames, frames, frames)
        spec = msgspec.structs.replace(SPEC, video=rule, temporal_patch=patch)
        bound = msgspec.structs.replace(rule, max_pixels=most * frames)
        there = Timeline(msgspec.structs.replace(spec, video=bound), video_fps=1.0)
        shots = [Pixels(np.resize(scene(), (*shape, 3)), number * SECOND_US) for number in range(9 * patch)]
        line = Timeline(spec, video_fps=1.0, idle_pixels=most)
        ours, theirs = (
            [segment.pixels for segment in one.feed(1, shots).segments if isinstance(segment, VideoSegment)]
            for one in (line, there)
        )
        assert len(ours) == 9 and ours[0].shape[1:3] == fit(rule, *shape)
        assert np.array_equal(ours[-1], theirs[-1]) and ours[-1][0, ..., 0].size <= most
