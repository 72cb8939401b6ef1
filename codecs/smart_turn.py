"""Smart Turn v3 (github.com/pipecat-ai/smart-turn, BSD-2): has somebody finished, or do they only pause? By its weights
as ONNX, with `onnxruntime`. Comes in: the sound of a turn; goes out: a likelihood. It keeps nothing between calls.
"""

from __future__ import annotations

from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

RATE, SECONDS = 16_000, 8  # what it takes: the newest so many seconds
_BINS, _HOP, _HALF = 80, 160, 200


def installed_file() -> str | None:
    """The weights that the package pipecat-ai has; None where it is not installed."""
    spec = find_spec("pipecat")
    for place in [] if spec is None else spec.submodule_search_locations or []:
        found = sorted((Path(place) / "audio" / "turn" / "smart_turn" / "data").glob("smart-turn-v3*.onnx"))
        if found:
            return str(found[-1])
    return None


def can_run() -> bool:
    """Whether onnxruntime is installed."""
    return find_spec("onnxruntime") is not None


class SmartTurn:
    """The model in a file; it is loaded at its first use, and computes on one thread, that of its caller."""

    def __init__(self, file: str) -> None:
        self._file = file

    def finished(self, sound: np.ndarray) -> float:
        """How likely it is that somebody who has said this, `(n,)` float32 at `RATE`, has finished."""
        import torch

        from .mel import floor_and_scale, log_mel

        sound = np.pad(sound[-SECONDS * RATE :], (max(0, SECONDS * RATE - len(sound)), 0))
        sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
        mirrored = np.concatenate((sound, sound[-2 : -_HALF - 2 : -1]))
        power = log_mel(_BINS).power(torch.from_numpy(mirrored), 0, SECONDS * RATE // _HOP)
        features = floor_and_scale(power, power.max())
        (likely,) = self._session.run(None, {"input_features": features[None].numpy()})[0].reshape(-1)
        return float(likely)

    def load(self) -> None:
        """Load it now, so that its first answer does not wait for it. May be called again."""
        assert self._session is not None

    @cached_property
    def _session(self) -> Any:
        onnxruntime = import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(self._file, options, providers=["CPUExecutionProvider"])


@cache
def smart_turn(file: str) -> SmartTurn:
    """One for all who ask for the same file."""
    return SmartTurn(file)
