"""Which detectors of speech there are. A name that is not installed is refused; none stands in for another."""

from __future__ import annotations

from functools import cache
from typing import Protocol

import numpy as np

from ...codecs.silero import SileroDetector, weights_file
from ...errors import InputError
from .energy import EnergyDetector

RATE, WINDOW = 16_000, 512  # what every detector takes: samples a second, and samples at once


class Detector(Protocol):
    """Tells how likely it is that a window of sound is speech. It keeps nothing between calls, so that one serves all
    streams and threads: what it knows of the windows before is in `memory`."""

    @property
    def name(self) -> str: ...

    @property
    def threshold(self) -> float:
        """From which likelihood on it is speech, if nobody says."""
        ...

    def hear(self, window: np.ndarray, memory: np.ndarray | None) -> tuple[float, np.ndarray]:
        """The likelihood, 0 to 1, of `WINDOW` samples float32 at `RATE`, and the memory for the next window. `memory`
        None: the sound begins here."""
        ...


def check_installed(name: str) -> None:
    """Raise InputError where the detector of this name is not installed. Loads nothing."""
    if name == "silero" and weights_file() is None:
        raise InputError(
            "turn_detection.detector: expected an installed one, got 'silero', which needs the package silero-vad: "
            'pip install "penstock[vad]"'
        )


@cache
def find(name: str) -> Detector:
    """The detector of this name; "auto" is silero where it is installed, else energy. Raises InputError as
    `check_installed` does."""
    if name == "auto":
        name = "energy" if weights_file() is None else "silero"
    check_installed(name)
    return EnergyDetector() if name == "energy" else SileroDetector()
