"""Sound as Realtime clients send it: PCM of 16 bits at 24 kHz, or G.711 at 8 kHz. In: bytes. Out: samples for a stream.

It does not know what the sound is for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ....streams.item import AudioChunk


def _mu_law() -> np.ndarray:
    """The 256 sample values of mu-law (ITU-T G.711), int16."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    size = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -size, size).astype("<i2")


def _a_law() -> np.ndarray:
    """The 256 sample values of A-law (ITU-T G.711), int16."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment, step = (code & 0x70) >> 4, (code & 0x0F) << 4
    size = np.where(segment == 0, step + 8, (step + 0x108) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, size, -size).astype("<i2")


class SoundFormat(NamedTuple):
    """How a client writes sound: its name on the wire, samples a second, bytes of a sample, values of its codes."""

    name: str
    rate: int
    width: int
    table: np.ndarray | None = None

    @property
    def described(self) -> dict[str, object]:
        """As a session's configuration has it."""
        return {"type": self.name, "rate": self.rate} if self.table is None else {"type": self.name}

    def chunk(self, data: bytes, pts_us: int | None = None) -> AudioChunk:
        """Samples for a stream, with their media time."""
        plain = data if self.table is None else self.table[np.frombuffer(data, np.uint8)].tobytes()
        return AudioChunk(plain, self.rate, pts_us)


PCM = SoundFormat("audio/pcm", 24_000, 2)
FORMATS = {
    form.name: form
    for form in (PCM, SoundFormat("audio/pcmu", 8_000, 1, _mu_law()), SoundFormat("audio/pcma", 8_000, 1, _a_law()))
}
