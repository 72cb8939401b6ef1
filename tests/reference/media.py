"""Pictures and sounds for tests, drawn from a seed, and as files without loss."""

from __future__ import annotations

import io
import wave

import numpy as np
from PIL import Image

RATE = 16_000


def picture(seed: int, height: int = 84, width: int = 56) -> np.ndarray:
    """A smooth coloured picture with one bright square, `(height, width, 3)` uint8."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ground, slope, bend = draw.uniform(40, 200, 3), draw.uniform(-90, 90, 3), draw.uniform(-90, 90, 3)
    pixels = ground + slope * (x / width - 0.5)[..., None] + bend * (y / height - 0.5)[..., None]
    top, left = draw.integers(0, height - 24), draw.integers(0, width - 24)
    pixels[top : top + 24, left : left + 24] = draw.uniform(0, 255, 3)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def frames(seed: int, count: int, height: int = 56, width: int = 84) -> np.ndarray:
    """`count` different pictures, `(count, height, width, 3)` uint8."""
    return np.stack([picture(1000 * seed + index, height, width) for index in range(count)])


def sound(seed: int, seconds: float, loudness: float = 0.3) -> np.ndarray:
    """Tones that change every half second over a little noise, mono float32 at 16 kHz."""
    draw = np.random.default_rng(seed)
    count = round(seconds * RATE)
    time = np.arange(count) / RATE
    tones = draw.uniform(150, 3500, size=(2, count // (RATE // 2) + 1)).repeat(RATE // 2, axis=1)[:, :count]
    wave = np.sin(2 * np.pi * tones * time).mean(axis=0) + 0.05 * draw.standard_normal(count)
    return (loudness * wave).astype(np.float32)


def png(pixels: np.ndarray) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """Mono samples as a file, 16 bits each."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()
