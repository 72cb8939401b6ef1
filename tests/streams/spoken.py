"""Sound for tests of listening, at 16 kHz: words said by espeak-ng, and what is no speech."""

from __future__ import annotations

import shutil
from functools import cache

import numpy as np
import pytest
from penstock.demos.brook.sound import RATE, say


@cache
def words(text: str, take: int = 1) -> np.ndarray:
    """Somebody says these words, in the voice of a take, half as loud as may be and without silence around them. Skips
    the test where nobody can."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed: no words can be said")
    return say(text, take) / 2


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float, level: float, seed: int = 1) -> np.ndarray:
    """White noise."""
    return (np.random.default_rng(seed).normal(size=round(seconds * RATE)) * level).astype(np.float32)


def rumble(seconds: float, level: float, seed: int = 1) -> np.ndarray:
    """Noise that is the louder the lower it is, as of wind and traffic."""
    walk = noise(seconds, 1.0, seed).cumsum()
    walk -= np.convolve(walk, np.ones(800) / 800, "same")
    return (walk / np.abs(walk).max() * level).astype(np.float32)


def clicks(seconds: float, every: float = 0.5) -> np.ndarray:
    sound = silence(seconds)
    step = round(every * RATE)
    sound[step // 2 :: step], sound[step // 2 + 1 :: step] = 0.9, -0.9
    return sound


def music(seconds: float) -> np.ndarray:
    """Beeps and a chord."""
    times = np.arange(round(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * pitch * times) for pitch in (262, 330, 392)) * 0.1
    return (chord + np.sin(2 * np.pi * 880 * times) * 0.2 * (times % 0.5 < 0.25)).astype(np.float32)
