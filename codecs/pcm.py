"""Raw sound to Samples. Comes in: interleaved bytes or arrays; goes out: Samples. Knows no files and no resampling."""

from __future__ import annotations

import numpy as np

from .errors import DamagedError, FormatError, InputError
from .frame import Samples
from .limits import DEFAULT_LIMITS, MediaLimits

ENCODINGS = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}


def decode_pcm(
    data: bytes | bytearray | memoryview | np.ndarray,
    encoding: str = "s16le",
    channels: int = 1,
    rate: int = 16000,
    pts_us: int = 0,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Samples:
    """Samples of raw sound: `(channels, n)` float32 at `rate` Hz.

    `data` is interleaved bytes in `encoding` ("s16le" is divided by 32768, "f32le" kept), or an array
    `(channels, n)` float32, for which `encoding` and `channels` are not read. Float samples may pass 1 in size.

    Errors: FormatError for another encoding, InputError for an array of another type or shape, LimitError for too
    many bytes, an absurd rate or number of channels, DamagedError for a broken last sample, NaN or infinity.
    """
    if isinstance(data, np.ndarray):
        samples = _checked_array(data, limits)
        limits.check_sound(rate, samples.shape[0], "sound")
    else:
        if encoding not in ENCODINGS:
            raise FormatError(f"sound encoding: expected one of {', '.join(ENCODINGS)}, got {encoding!r}")
        limits.check_sound(rate, channels, "sound")
        samples = _deinterleaved(data, encoding, channels, limits)
    broken = samples.size - int(np.count_nonzero(np.isfinite(samples)))
    if broken:
        raise DamagedError(f"sound: expected finite samples, got {broken} of {samples.size} that are NaN or infinite")
    return Samples(samples=samples, rate=rate, pts_us=pts_us)


def _checked_array(array: np.ndarray, limits: MediaLimits) -> np.ndarray:
    if array.dtype != np.float32 or array.ndim != 2:
        raise InputError(f"sound: expected an array (channels, n) float32, got {array.shape} {array.dtype}")
    limits.check_bytes(array.nbytes, "sound")
    return np.ascontiguousarray(array)


def _deinterleaved(data: bytes | bytearray | memoryview, encoding: str, channels: int, limits: MediaLimits):
    view = memoryview(data).cast("B")
    limits.check_bytes(len(view), "sound")
    dtype = ENCODINGS[encoding]
    step = dtype.itemsize * channels
    if len(view) % step:
        raise DamagedError(
            f"sound: expected a multiple of {step} bytes ({channels} channels of {encoding}), got {len(view)}"
        )
    rows = np.frombuffer(view, dtype).reshape(-1, channels).T
    samples = np.ascontiguousarray(rows, dtype=np.float32)
    if encoding == "s16le":
        samples /= np.float32(32768)
    elif np.shares_memory(samples, rows):
        samples = samples.copy()
    return samples
