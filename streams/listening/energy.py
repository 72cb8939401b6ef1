"""How likely it is that a window of sound is speech, by its level over the noise and by how its spectrum looks.

Needs no weights. It takes for speech what is 12 dB louder than the noise before it and has a voice's spectrum: most of
it between 100 Hz and 4 kHz, and in a few peaks. So white noise is none, at any level. A tone, music or a hum is taken
for speech, and so is a noise with peaks that begins suddenly, until the floor has risen to it in a few seconds.
"""

from __future__ import annotations

import numpy as np

_BANDS = np.fft.rfftfreq(512, 1 / 16_000)
_VOICE = (_BANDS >= 100) & (_BANDS <= 4000)
_HANN = np.hanning(512).astype(np.float32)
# In decibels: the quietest sound that counts, how far over the floor half of the likelihood is, and how steep that is.
_QUIETEST, _OVER, _STEEP = -55.0, 12.0, 2.0
# The floor falls to what is quieter at once, and rises by so much a window of 32 ms.
_RISES = 0.12
# Flatness of a spectrum: 1 is noise, 0 a tone. From here on it is no voice, and how steep that is.
_FLAT, _FLAT_STEEP = 0.42, 0.04


class EnergyDetector:
    """The detector."""

    name = "energy"
    threshold = 0.5

    def hear(self, window: np.ndarray, memory: np.ndarray | None) -> tuple[float, np.ndarray]:
        """As `Detector` has it. The memory is the level of the noise in decibels."""
        power = np.abs(np.fft.rfft(window * _HANN)) ** 2 + 1e-12
        voice = power[_VOICE]
        level = 10 * np.log10(voice.sum() / 512**2 * 8 / 3 + 1e-10)
        floor = min(level, _QUIETEST) if memory is None else min(level, float(memory[0]) + _RISES)
        over = (level - max(floor, _QUIETEST - _OVER) - _OVER) / _STEEP
        flatness = np.exp(np.log(voice).mean()) / voice.mean()
        likely = 1 / (1 + np.exp(-np.clip(over, -30, 30))) / (1 + np.exp((flatness - _FLAT) / _FLAT_STEEP))
        return float(likely), np.array([floor], np.float32)
