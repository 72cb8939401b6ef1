"""PyAV's decoded frames to arrays. Comes in: `av.VideoFrame`, `av.AudioFrame`; goes out: arrays. Knows no container."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from .errors import DamagedError

_WHOLE = {"u8": 128.0, "s16": 32768.0, "s32": 2147483648.0}


def pixels(frame: av.VideoFrame, aspect: Fraction | None = None) -> np.ndarray:
    """RGB of a frame, `(h, w, 3)` uint8, contiguous, turned and mirrored as its display matrix says.

    Colours are converted by swscale with the frame's own matrix and range (BT.601, limited, where it does not say).
    Only the sign of the matrix' entries is read: turns by 90 degrees and mirrors, which is what cameras write.
    """
    rgb = frame.reformat(format="rgb24", threads=1).to_ndarray()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return rgb
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def samples(frame: av.AudioFrame) -> np.ndarray:
    """Sound of a frame, `(channels, n)` float32; whole numbers are scaled to [-1, 1)."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    kind = frame.format.name.removesuffix("p")
    if kind in _WHOLE:
        array = (array.astype(np.float64) - (128 if kind == "u8" else 0)) / _WHOLE[kind]
    elif kind not in ("flt", "dbl"):
        raise DamagedError(f"sound: expected samples of type u8, s16, s32, flt or dbl, got {frame.format.name}")
    return np.ascontiguousarray(array, dtype=np.float32)
