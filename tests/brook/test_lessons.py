"""Lessons: what a stream has been shown when it is made to say something."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.demos.brook.lessons import Piece, Plan, cut

times = st.lists(st.floats(0.0, 6.9).map(lambda time: round(time, 2)), max_size=4, unique=True).map(sorted)


@given(times, st.booleans(), st.booleans(), st.floats(3.0, 7.0))
def test_pieces_tile_the_stream(asks: list[float], video: bool, audio: bool, seconds: float):
    asks = [time for time in asks if time < seconds]
    steps = list(cut(Plan(seconds, video, audio, False, asks)))
    assert [step for step in steps if isinstance(step, float)] == asks
    pieces = [step for step in steps if isinstance(step, Piece)]
    ticks = [tick for piece in pieces if piece.kind == "video" for tick in dict.fromkeys((piece.start, piece.stop))]
    assert ticks == [number * 0.5 for number in range(len(ticks))]
    assert not ticks or video
    sounds = [piece for piece in pieces if piece.kind == "audio"]
    assert not sounds or audio
    for before, after in pairwise(sounds):
        assert after.start == pytest.approx(before.stop)
        assert after.run == before.run + before.forced
    for piece in sounds:
        assert piece.forced or piece.stop - piece.start == pytest.approx(1.0)


@given(times)
def test_nothing_is_asked_before_it_is_shown(asks: list[float]):
    shown = 0.0
    for step in cut(Plan(7.0, True, True, False, asks)):
        if isinstance(step, Piece):
            if step.kind == "video":
                shown = max(shown, step.stop)
        elif step >= 0.0:
            assert shown <= step
            assert shown >= np.floor(step * 2) / 2
