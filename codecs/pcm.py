"""Raw sound to Samples. Comes in: interleaved bytes or arrays; goes out: Samples. Knows no files and no resampling."""

from __future__ import annotations

import numpy as np

from ..errors import DamagedError, FormatError, InputError
from .frame import Samples
from .limits import DEFAULT_LIMITS, MediaLimits

# Sound is within 1; honest mixes and decoders pass it by some decibels. This is 24 dB above, and far below what bytes
# of another encoding look like as floats, or whole numbers that were not scaled.
MOST_SIZE = 16.0
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
    many bytes, an absurd rate or number of channels, DamagedError for a broken last sample and as `check_samples`.
    """
    if isinstance(data, np.ndarray):
        samples = _checked_array(data, limits)
        limits.check_sound(rate, samples.shape[0], "sound")
    else:
        if encoding not in ENCODINGS:
            raise FormatError(f"sound encoding: expected one of {', '.join(ENCODINGS)}, got {encoding!r}")
        limits.check_sound(rate, channels, "sound")
        samples = _deinterleaved(data, encoding, channels, limits)
    check_samples(samples, rate)
    return Samples(samples=samples, rate=rate, pts_us=pts_us)


def check_samples(samples: np.ndarray, rate: int, what: str = "sound", first: int = 0) -> None:
    """Raise DamagedError where samples `(channels, n)` or `(n,)` are NaN, infinite or beyond `MOST_SIZE` in size.

    The message counts them and names the first one by its number (`first` is that of `samples[..., 0]`) and its time at
    `rate` Hz, if that is known (not 0).
    """
    bad = bad_samples(samples)
    if not bad.any():
        return
    at = int(np.argmax(bad.reshape(-1, bad.shape[-1]).any(axis=0)))
    value = samples.reshape(-1, samples.shape[-1])[:, at][bad.reshape(-1, bad.shape[-1])[:, at]][0]
    time = f" ({(first + at) / rate:.3f} s)" if rate else ""
    raise DamagedError(
        f"{what}: expected finite samples of at most {MOST_SIZE:g} in size (sound is within 1), got "
        f"{int(np.count_nonzero(bad))} of {bad.size} that are not, the first {value:g} at sample {first + at}{time}"
    )


def bad_samples(samples: np.ndarray) -> np.ndarray:
    """Which samples are NaN, infinite or beyond `MOST_SIZE` in size."""
    return ~(np.abs(samples) <= MOST_SIZE)


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
