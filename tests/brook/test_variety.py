"""What is learnt from is not always the same: voices differ, and so do the cameras that take the pictures."""

from __future__ import annotations

import subprocess
from collections import Counter
from typing import Any

import numpy as np
import pytest
from penstock.demos.brook import sound
from penstock.demos.brook.draw import Lens, Painter
from penstock.demos.brook.foreign import spoken
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


def test_words_from_outside_the_vocabulary_are_said_by_every_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, int]] = []
    monkeypatch.setattr(sound, "say", lambda word, take: said.append((word, take)) or np.zeros(1, np.float32))
    Bank(range(7), half=1, others=2)
    foreign = [(word, take) for word, take in said if word in spoken(1)]
    assert len(set(foreign)) == len(foreign) == 2 * len(spoken(1))
    counts = Counter(take for _, take in foreign)
    assert set(counts) == set(range(7)) and max(counts.values()) - min(counts.values()) <= 1


def test_cameras_have_noise_and_light_of_their_own_and_leave_colours_what_they_are() -> None:
    square = Thing(0, "square", "red", "large", 0.16, 0.5, 0.5, 4)
    clean = Painter(Scene(1, 4.0, (square,), (), ()), 112).picture(1.0)
    taken = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        camera = Lens.drawn(random)
        taken.append(camera.take(clean, random).astype(int))
    assert all(picture.shape == clean.shape for picture in taken)
    errors = [np.abs(picture - clean).mean() for picture in taken]
    assert max(errors) > 2 * min(errors) and max(errors) > 4
    assert len({round(float(picture.mean())) for picture in taken}) >= 4
    for picture in taken:
        red, green, blue = picture[48:64, 48:64].reshape(-1, 3).mean(axis=0)
        assert red > 1.5 * green and red > 1.5 * blue
