"""Clips whose frames have their times in words between them: the same frames at another time are another clip, and a
clip in which nothing moves may be fewer rows than one in which all does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from penstock.engine.runner.encoder import Encoder

from tests.engine.rig import TOLERANCE
from tests.families.built import BUILDERS
from tests.families.suite import MEDIA, Watched, opened


def test_the_same_still_frames_twice_have_each_their_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = opened(BUILDERS["video_llama_3"].build(tmp_path))
    assert tried.loaded.family.data.classes["video"] == "E"
    watched = Watched(tried, monkeypatch)
    core = watched.rig.core
    core.encoder = Encoder(tried.towers, 1 << 20, core.language.spans)  # it keeps what it made
    session = watched.rig.open(format="live")
    still = MEDIA["video"][0][0]
    for number in range(16):
        session.frame(still, number * 500_000)
    watched.rig.step(2)
    session.ask("What do you see?", max_tokens=8)
    watched.rig.run()
    clips = [tried.towers.piece(segment) for segment in watched.segments]
    assert len(clips) == 2
    assert not np.array_equal(clips[0].ids, clips[1].ids)
    assert len(clips[0].ids) < tried.towers.rows(watched.segments[0])
    logits = watched.logits(session)
    for row, (_, drawn) in session.draws.items():
        assert float((drawn - logits[row]).abs().max()) < TOLERANCE * max(1.0, float(logits[row].abs().max()))
