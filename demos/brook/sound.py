"""How Brook's world sounds. In: a scene. Out: its sound track, mono float32 at `RATE`.

Words are said by espeak-ng in many voices; a `Bank` says them beforehand. Beeps are made here. It does not know
pictures.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import subprocess
import wave
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .foreign import spoken
from .world import WORDS, Scene, Sound

RATE = 16_000
_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-us-nyc")
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Andy", "Annie", "steph")


def say(word: str, take: int) -> np.ndarray:
    """`word` in the voice of a take, trimmed to where it can be heard, largest value 1.

    FileNotFoundError where espeak-ng is not installed.
    """
    random = np.random.default_rng(take)
    voice = f"{random.choice(_ACCENTS)}+{random.choice(_VARIANTS)}"
    speed, pitch = int(random.integers(125, 196)), int(random.integers(25, 86))
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word.replace("-", " ")]
    file = io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout)
    with wave.open(file) as sound:
        rate = sound.getframerate()
        samples = np.frombuffer(sound.readframes(-1), np.int16).astype(np.float32)
    samples = _resampled(samples, rate)
    samples /= max(float(np.abs(samples).max()), 1.0)
    heard = np.flatnonzero(np.abs(samples) > 0.03)
    return samples[heard[0] : heard[-1] + 1]


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """To `RATE`, through the spectrum: exact for a short sound that begins and ends in silence."""
    count = round(len(samples) * RATE / rate)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return (np.fft.irfft(spectrum, count) * (count / len(samples))).astype(np.float32)


class Bank:
    """Takes of every word. `half` 0 has the foreign words of training, 1 those of evaluation: `others` takes of each,
    in all voices alike, so that no voice tells that a word is foreign."""

    def __init__(self, takes: Iterable[int], half: int, others: int = 4) -> None:
        takes = list(takes)
        turns = itertools.cycle(takes)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            known = {word: pool.map(say, itertools.repeat(word), takes) for word in WORDS}
            foreign = [(word, next(turns)) for word in spoken(half) for _ in takes[:others]]
            known["other"] = pool.map(say, *zip(*foreign, strict=True))
            self.clips = {word: list(clips) for word, clips in known.items()}

    @property
    def seconds(self) -> dict[str, list[float]]:
        """How long each take lasts."""
        return {word: [len(clip) / RATE for clip in clips] for word, clips in self.clips.items()}

    def samples(self, sound: Sound) -> np.ndarray:
        """A sound at its own loudness."""
        random = np.random.default_rng(sound.take)
        if sound.kind == "beep":
            return _beep(sound, random)
        clips = self.clips[sound.value]
        return clips[sound.take % len(clips)] * np.float32(random.uniform(0.2, 0.9))

    def track(self, scene: Scene) -> np.ndarray:
        """The whole sound of a scene, `(seconds * RATE,)`."""
        random = np.random.default_rng((scene.seed, 1))
        count = round(scene.seconds * RATE)
        track = _hiss(random, count)
        for sound in scene.sounds:
            samples = self.samples(sound)
            first = round(sound.start * RATE)
            samples = samples[: count - first]
            track[first : first + len(samples)] += samples
        return np.clip(track, -1, 1)


def _hiss(random: np.random.Generator, count: int) -> np.ndarray:
    """What is heard when nothing is: silence, or noise of -70 to -36 dB, white or darker."""
    if random.random() < 0.3:
        return np.zeros(count, np.float32)
    noise = random.standard_normal(count, np.float32) * np.float32(10 ** random.uniform(-3.5, -1.8))
    if random.random() < 0.5:
        noise = np.convolve(noise, np.full(8, 0.25, np.float32), "same")
    return noise


@functools.lru_cache(4096)
def _beep_shape(count: int) -> np.ndarray:
    ramp = np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.008 * RATE)
    return np.minimum(ramp, 1.0).astype(np.float32)


def _beep(sound: Sound, random: np.random.Generator) -> np.ndarray:
    count = round((sound.stop - sound.start) * RATE)
    tone = random.uniform(1000, 2200) if sound.value == "high" else random.uniform(250, 500)
    time = np.arange(count) / RATE
    wave = np.sin(2 * np.pi * tone * time)
    if random.random() < 0.3:
        wave = wave + 0.3 * np.sin(6 * np.pi * tone * time)
    return (wave * random.uniform(0.08, 0.6)).astype(np.float32) * _beep_shape(count)
