"""What is learnt from is not always the same: voices differ, and so do the cameras that take the pictures."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import pytest
from penstock.demos.brook import sound
from penstock.demos.brook.draw import Camera, Painter
from penstock.demos.brook.sound import Bank
from penstock.demos.brook.world import Scene, Thing


def test_words_are_said_by_several_voices_at_several_speeds_and_pitches(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, str]] = []
    run = subprocess.run

    def record(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        said.append(dict(zip(command[1::2], command[2::2], strict=False)))
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", record)
    takes = [sound.say("seven", take) for take in range(10)]
    for option in ("-v", "-s", "-p"):
        assert len({call[option] for call in said}) >= 5, option
    assert len({len(take) for take in takes}) >= 5


def test_cameras_have_noise_and_light_of_their_own_and_leave_colours_what_they_are() -> None:
    square = Thing(0, "square", "red", "large", 0.16, 0.5, 0.5, 4)
    clean = Painter(Scene(1, 4.0, (square,), (), ()), 112).picture(1.0)
    taken = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        camera = Camera.drawn(random)
        taken.append(camera.take(clean, random).astype(int))
    assert all(picture.shape == clean.shape for picture in taken)
    errors = [np.abs(picture - clean).mean() for picture in taken]
    assert max(errors) > 2 * min(errors) and max(errors) > 4
    assert len({round(float(picture.mean())) for picture in taken}) >= 4
    for picture in taken:
        red, green, blue = picture[48:64, 48:64].reshape(-1, 3).mean(axis=0)
        assert red > 1.5 * green and red > 1.5 * blue
