"""PyAV's decoded frames to arrays. Comes in: `av.VideoFrame`, `av.AudioFrame`; goes out: arrays. Knows no container."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Colorspace

from ..errors import DamagedError
from .hdr import CURVES, to_sdr

_WHOLE = {"u8": 128.0, "s16": 32768.0, "s32": 2147483648.0}
_UNTAGGED = 2
_MOST_OBLONG = 8  # pixels that are stated to be longer than this are taken as square


def square_size(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height of a frame once its pixels, `aspect` times as wide as high, are made square by enlarging it."""
    if not aspect or not Fraction(1, _MOST_OBLONG) <= aspect <= _MOST_OBLONG:
        return frame.width, frame.height
    if aspect > 1:
        return round(frame.width * aspect), frame.height
    return frame.width, round(frame.height / aspect)


def pixels(frame: av.VideoFrame, aspect: Fraction | None = None) -> np.ndarray:
    """RGB of a frame, `(h, w, 3)` uint8, contiguous: with square pixels, turned as its display matrix says.

    Colours are converted with the frame's own matrix and range. Where it names no matrix it is BT.709 from 1280 pixels
    of width or 577 lines on, else BT.601, as players take it; where it names no range it is limited. HDR (PQ, HLG) is
    brought to SDR; see hdr.py. Only the sign of the display matrix' entries is read: turns by 90 degrees and mirrors,
    which is what cameras write.
    """
    width, height = square_size(frame, aspect)
    source = None
    if frame.color_trc in CURVES:
        source = Colorspace.BT2020
    elif frame.colorspace == _UNTAGGED and (frame.width >= 1280 or frame.height > 576):
        source = Colorspace.ITU709
    rgb = frame.reformat(width, height, format="rgb24", src_colorspace=source, threads=1).to_ndarray()
    if frame.color_trc in CURVES:
        rgb = to_sdr(rgb, frame.color_trc)
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
    with np.errstate(over="ignore"):  # what is too large for 32 bits is refused as infinite
        return np.ascontiguousarray(array, dtype=np.float32)
