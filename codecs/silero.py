"""Silero VAD (github.com/snakers4/silero-vad, MIT), from the weights of its package, in numpy.

A window of 512 samples at 16 kHz, with the 64 before it, goes through a short Fourier transform (4 frames), four
convolutions and one step of an LSTM. It takes less than a hundredth of a core; torch only reads the weights. The model
as the package has it keeps its state inside, and so it serves one stream only.
"""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np

_WEIGHTS = "data/silero_vad.jit"
_CONTEXT, _HIDDEN = 64, 128


def weights_file() -> Path | None:
    """Where the installed package has the weights; None where it is not installed."""
    spec = find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / _WEIGHTS
    return file if file.is_file() else None


class SileroDetector:
    """The detector; its weights are read at its first window."""

    name = "silero"
    threshold = 0.5

    def hear(self, window: np.ndarray, memory: np.ndarray | None) -> tuple[float, np.ndarray]:
        """As `Detector` has it. The memory is the newest samples, then the LSTM's output and cell."""
        weights = self._weights
        memory = np.zeros(_CONTEXT + 2 * _HIDDEN, np.float32) if memory is None else memory
        sound = np.concatenate((memory[:_CONTEXT], window))
        padded = np.pad(sound, (0, _CONTEXT), "reflect")
        frames = np.stack([padded[start : start + 256] for start in range(0, len(padded) - 255, 128)], 1)
        real, imaginary = np.split(weights["stft_conv"] @ frames, 2)
        layers = np.sqrt(real * real + imaginary * imaginary)
        for number, stride in ((1, 1), (2, 2), (3, 2), (4, 1)):
            layers = _convolved(layers, weights[f"conv{number}"], weights[f"conv{number}.bias"], stride)
        hidden, cell = memory[_CONTEXT : _CONTEXT + _HIDDEN], memory[_CONTEXT + _HIDDEN :]
        gates = weights["ih"] @ layers[:, 0] + weights["hh"] @ hidden + weights["bias"]
        enter, forget, new, leave = np.split(gates, 4)
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(new)
        hidden = _sigmoid(leave) * np.tanh(cell)
        said = _sigmoid(weights["final"] @ np.maximum(hidden, 0) + weights["final.bias"])
        return float(said), np.concatenate((window[-_CONTEXT:], hidden, cell)).astype(np.float32)

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        import torch

        file = weights_file()
        assert file is not None
        model = torch.jit.load(file, map_location="cpu").state_dict()
        given = {name.removeprefix("_model."): tensor.numpy().copy() for name, tensor in model.items()}
        weights = {"stft_conv": given["stft.forward_basis_buffer"][:, 0]}
        for number in range(1, 5):
            kernel = given[f"encoder.{number - 1}.reparam_conv.weight"]
            weights[f"conv{number}"] = np.ascontiguousarray(kernel.reshape(len(kernel), -1))
            weights[f"conv{number}.bias"] = given[f"encoder.{number - 1}.reparam_conv.bias"][:, None]
        weights["ih"], weights["hh"] = given["decoder.rnn.weight_ih"], given["decoder.rnn.weight_hh"]
        weights["bias"] = given["decoder.rnn.bias_ih"] + given["decoder.rnn.bias_hh"]
        weights["final"] = given["decoder.decoder.2.weight"][0, :, 0]
        weights["final.bias"] = given["decoder.decoder.2.bias"][0]
        return weights


def _convolved(layers: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """A convolution three wide over `(channels, n)`, with zeros at both ends, and what of it is above 0."""
    padded = np.pad(layers, ((0, 0), (1, 1)))
    starts = range(0, layers.shape[1], stride)
    columns = np.stack([padded[:, start : start + 3].reshape(-1) for start in starts], 1)
    return np.maximum(kernel @ columns + bias, 0)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(values / 2)) / 2
