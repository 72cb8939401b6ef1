"""Which detectors of speech there are. A name that is not installed is refused; none stands in for another."""

from __future__ import annotations

from functools import cache
from typing import Protocol

import msgspec
import numpy as np

from ...codecs.silero import SileroDetector, weights_file
from ...codecs.smart_turn import can_run, smart_turn
from ...errors import InputError
from ..requests.turns import TurnDetection
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


class Ends(Protocol):
    """Tells how likely it is that somebody who has said this has finished: `(n,)` float32 at `RATE`. It keeps nothing
    between calls."""

    def finished(self, sound: np.ndarray) -> float: ...

    def load(self) -> None: ...


class Hearing(msgspec.Struct, frozen=True):
    """What an engine listens with. `live_trained`: its model is, so that streams are `live` if they do not say.
    `turn_model`: the file of the model that hears whether somebody has finished; None: there is none."""

    live_trained: bool = False
    turn_model: str | None = None


def check_installed(turns: TurnDetection, turn_model: str | None) -> None:
    """Raise InputError where what is asked for is not installed. Loads nothing."""
    _check_detector(turns.detector)
    if turns.semantic is None:
        return
    if not can_run():
        raise InputError(
            "turn_detection.semantic: expected None, or the package onnxruntime, which is not installed: "
            'pip install "penstock[turn]"'
        )
    if turn_model is None:
        raise InputError(
            "turn_detection.semantic: expected None, or an engine with the weights of smart-turn v3: name them "
            "(EngineConfig.turn_model, --turn-model FILE), or pip install pipecat-ai, which has them"
        )


def _check_detector(name: str) -> None:
    if name == "silero" and weights_file() is None:
        raise InputError(
            "turn_detection.detector: expected an installed one, got 'silero', which needs the package silero-vad: "
            'pip install "penstock[vad]"'
        )


@cache
def find(name: str) -> Detector:
    """The detector of this name; "auto" is silero where it is installed, else energy. Raises InputError where it is not
    installed."""
    if name == "auto":
        name = "energy" if weights_file() is None else "silero"
    _check_detector(name)
    return EnergyDetector() if name == "energy" else SileroDetector()


def find_ends(turns: TurnDetection, turn_model: str | None) -> Ends | None:
    """What hears whether somebody has finished; None where silence alone counts. Raises InputError as `check_installed`
    does."""
    check_installed(turns, turn_model)
    return None if turns.semantic is None or turn_model is None else smart_turn(turn_model)
