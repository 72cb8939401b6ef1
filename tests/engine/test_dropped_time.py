"""What is dropped as nothing new takes its time all the same: what follows stands where it would if nothing had been
dropped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Frame, Pixels, Samples
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.errors import InputError
from penstock.streams.requests.request import Request
from penstock.streams.timeline import Timeline

from tests.fixtures.loaded import served
from tests.reference.media import frames, sound

NEVER_US = 10**12
SCENES = frames(1, 3, 56, 56)
LOUD, SILENT = sound(1, 2.0)[None], np.zeros((1, 32_000), np.float32)
_streams = itertools.count(1 << 40)
# Of each piece, by its modality and the time at which it starts, the positions; and those of each text's last row.
Told = tuple[dict[tuple[str, int | None], np.ndarray], list[np.ndarray]]


def told(loaded: Loaded, acts: Iterable[Frame | str], fps: float | None = None) -> tuple[Told, Told]:
    """Where the media and the words stand of a stream that drops what is still, and of one that drops nothing."""
    acts, core = list(acts), Core(loaded, EngineConfig(kv_tokens=8192, backend="cpu"))
    both: list[Told] = []
    for still_us in (NEVER_US, None):
        stream, line = next(_streams), Timeline(loaded.family.spec, still_us=still_us, video_fps=fps)
        core.open(stream, Request(format="turns", window=None, video_fps=fps))
        words: list[np.ndarray] = []
        for seq, act in enumerate(acts, 1):
            if isinstance(act, str):
                core.text(stream, seq, act, flushed=line.flush(seq).pieces)
                words.append(core.scheduler.streams[stream].laid[-1].positions[:, -1])
            else:
                core.append(stream, seq, line.feed(seq, [act]).pieces)
        laid = core.scheduler.streams[stream].laid
        pieces = {(run.seen.modality, run.seen.start_us): run.positions for run in laid if run.seen is not None}
        both.append((pieces, words))
    assert len(both[0][0]) < len(both[1][0])
    return both[0], both[1]


def pairs(loaded: Loaded, shown: Iterable[int], fps: float | None = None, first: int = 0) -> list[Pixels]:
    """Frames of these scenes, each as long as a piece of video is; the first is piece number `first`."""
    spec = loaded.family.spec
    each, rate = spec.temporal_patch, fps or spec.video_fps
    ticks = enumerate([scene for scene in shown for _ in range(each)], first * each)
    return [Pixels(SCENES[scene], round(tick / rate * 1e6)) for tick, scene in ticks]


def seconds_of_sound(heard: Iterable[bool]) -> list[Samples]:
    """Stretches of two seconds, loud or silent."""
    return [Samples(LOUD if loud else SILENT, 16_000, place * 2_000_000) for place, loud in enumerate(heard)]


def same(told: tuple[Told, Told], axes: slice = slice(None)) -> None:
    """Each piece that went in, and all words, stand where they do if nothing is dropped."""
    (ours, words), (whole, all_words) = told
    for name, positions in ours.items():
        assert np.array_equal(positions[axes], whole[name][axes]), name
    assert np.array_equal(words, all_words)


@pytest.mark.parametrize("name", ["omni", "qwen3_omni", "qwen2_vl", "qwen2_5_vl", "llava_onevision"])
def test_a_frame_behind_dropped_ones_and_words_stand_at_their_time(name: str) -> None:
    loaded = served(name)
    same(told(loaded, [*pairs(loaded, [0, 0, 0, 1, 1, 2, 0, 0, 0]), "What?"]))


@given(st.lists(st.integers(0, 2), min_size=2, max_size=12), st.sampled_from([None, 3.0, 0.7]))
def test_whatever_is_dropped_and_at_whatever_rate(shown: list[int], fps: float | None) -> None:
    loaded = served("qwen2_5_vl")
    same(told(loaded, [*pairs(loaded, [*shown, shown[-1]], fps), "What?"], fps))


@pytest.mark.parametrize("name", ["omni", "qwen3_omni"])
def test_sound_behind_silence_stands_at_its_time(name: str) -> None:
    same(told(served(name), [*seconds_of_sound([True, False, False, True, False, True, False]), "What?"]))


def test_a_frame_stands_at_its_time_in_a_turn_that_began_with_dropped_ones(omni_loaded: Loaded) -> None:
    """Its block begins with it: only its time counts from the first frame that was dropped."""
    first, second = pairs(omni_loaded, [0]), pairs(omni_loaded, [0, 0, 1], first=1)
    ours, whole = told(omni_loaded, [*first, "So?", *second])
    same((ours, whole), slice(0, 1))


def test_time_passes_in_a_turn_of_which_nothing_went_in(omni_loaded: Loaded) -> None:
    per_second = int(omni_loaded.family.data.per_second)
    ours, _ = told(omni_loaded, [*pairs(omni_loaded, [0]), "So?", *pairs(omni_loaded, [0] * 60, first=1), "And now?"])
    before, now = (int(position[0]) for position in ours[1])
    assert 0 <= now - before - 60 * per_second < 20


def test_silence_beside_frames_takes_no_time_of_theirs(omni_loaded: Loaded) -> None:
    """They go on in their block, in which each second has its place."""
    shown = pairs(omni_loaded, [0, 1, 2, 0])
    both = sorted([*shown, *seconds_of_sound([False] * 2)], key=lambda frame: frame.pts_us)
    ours, _ = told(omni_loaded, [Samples(LOUD, 16_000, -2_000_000), *both])
    alone, _ = told(omni_loaded, [*shown, *pairs(omni_loaded, [0], first=4)])
    times = [[int(run[0, 0]) for name, run in one[0].items() if name[0] == "video"] for one in (ours, alone)]
    assert np.array_equal(np.diff(times[0]), np.diff(times[1]))


def test_times_in_words_need_no_positions() -> None:
    """Each frame of such a model tells its time itself: it stands right behind the one before."""
    loaded = served("qwen3_vl")
    ours, _ = told(loaded, pairs(loaded, [0, 0, 0, 1]))
    begins = [int(positions.min()) for positions in ours[0].values()]
    assert begins[1] - begins[0] < 20


@pytest.mark.parametrize(("name", "fps", "most"), [("omni", None, 655), ("llava_onevision", 10.0, 410)])
def test_no_more_may_be_dropped_than_there_are_positions_for(name: str, fps: float | None, most: int) -> None:
    """Time that passes takes positions, and the model has to hold both sides of it."""
    core = Core(served(name), EngineConfig(kv_tokens=8192, backend="cpu"))
    core.open(next(_streams), Request(drop_still=5.0, video_fps=fps))
    with pytest.raises(InputError, match=rf"drop_still: expected at most {most} seconds .* 32768 positions, got 3600"):
        core.open(next(_streams), Request(drop_still=3600.0, video_fps=fps))
