"""High dynamic range to what models are trained on. Comes in: RGB of PQ or HLG video; goes out: RGB of usual video.

White of HDR video is 203 cd/m2 (ITU-R BT.2408) and becomes white; what is brighter is pressed together near it. Colours
go from BT.2020 to BT.709 primaries, those outside are clipped.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

PQ, HLG = 16, 18  # transfer characteristics of ISO/IEC 23091-2 (SMPTE ST 2084 and ITU-R BT.2100 HLG)
CURVES = (PQ, HLG)
_NODES = 65
_WHITE = 203.0  # cd/m2
_KNEE = 0.9  # up to this share of white nothing is pressed
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def to_sdr(rgb: np.ndarray, curve: int) -> np.ndarray:
    """Usual RGB `(h, w, 3)` uint8 of pixels with the transfer characteristics `curve`, of the same shape."""
    return np.array(Image.fromarray(rgb).filter(_table(curve)))


@lru_cache
def _table(curve: int) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0.0, 1.0, _NODES)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    light = _light(np.stack([red, green, blue], axis=-1).reshape(-1, 3), curve) / _WHITE
    over = np.maximum(light - _KNEE, 0.0) / (1 - _KNEE)
    light = np.where(light > _KNEE, _KNEE + (1 - _KNEE) * (1 - np.exp(-over)), light)
    usual = np.clip(light @ _TO_709.T, 0.0, 1.0) ** (1 / 2.4)  # ITU-R BT.1886
    return ImageFilter.Color3DLUT(_NODES, usual.reshape(-1).tolist())


def _light(signal: np.ndarray, curve: int) -> np.ndarray:
    """Light in cd/m2 that a display gives for a signal in [0, 1]: ITU-R BT.2100, tables 4 and 5."""
    if curve == PQ:
        power = signal ** (1 / 78.84375)
        return 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return 1000 * scene * np.maximum(luminance, 1e-9)[:, None] ** 0.2
