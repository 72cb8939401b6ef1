"""Clips whose frames have their times in words between them: the same frames at another time are another clip, and a
clip in which nothing moves may be fewer rows than one in which all does. Clips of another length than a model
sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from penstock.engine.runner.encoder import Encoder
from penstock.errors import InputError

from tests.engine.rig import TOLERANCE
from tests.families.built import BUILDERS
from tests.families.suite import MEDIA, Watched, asked, opened


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


def test_frames_that_a_model_leaves_out_are_refused(tmp_path: Path) -> None:
    """Of a longer clip the library would show it the first four alone, and of a shorter one none."""
    tried = opened(BUILDERS["instructblipvideo"].build(tmp_path))
    for count in (3, 8):
        with pytest.raises(InputError, match=f"video: expected 4 frames, got {count}"):
            asked(tried, ("video", MEDIA["video"][1][:count]))
