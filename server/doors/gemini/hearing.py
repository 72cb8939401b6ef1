"""The sound of one Gemini Live connection, on its own clock, and what of it was speech.

In: sound, and where speech starts and stops. Out: samples with their media times, and entries of the history.
"""

from __future__ import annotations

from typing import NamedTuple

from ....streams.item import AudioChunk
from .history import GeminiEntry

# What is kept while nobody is known to speak: speech is heard a little after it starts, and begins before that.
_KEPT_US = 10_000_000
# The most of one turn that is kept.
_MOST_US = 300_000_000


class _Piece(NamedTuple):
    start_us: int
    data: bytes
    rate: int

    def within(self, start_us: int, stop_us: int) -> bytes:
        """The part between two times."""
        places = [max(0, round((us - self.start_us) * self.rate / 1_000_000)) * 2 for us in (start_us, stop_us)]
        return self.data[places[0] : places[1]]


class HeardActivity:
    """All the sound of a connection that the stream listens to."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._base_us = 0  # the time at which sound of this rate began
        self._samples = 0  # since then
        self._rate = 16_000
        self._from_us: int | None = None  # where the speech began that goes on

    @property
    def now_us(self) -> int:
        """How much sound was appended."""
        return self._base_us + self._samples * 1_000_000 // self._rate

    @property
    def rate(self) -> int:
        """The rate of the newest sound."""
        return self._rate

    def append(self, data: bytes, rate: int) -> AudioChunk:
        """The next sound, whole samples of 16 bits, for the stream."""
        start_us = self.now_us
        if rate != self._rate:
            self._base_us, self._samples, self._rate = start_us, 0, rate
        self._samples += len(data) // 2
        self._pieces.append(_Piece(start_us, data, rate))
        self._forget(self.now_us - (_KEPT_US if self._from_us is None else _MOST_US))
        return AudioChunk(data, rate, start_us)

    def started(self, at_us: int) -> None:
        """Somebody has begun to speak."""
        self._from_us = at_us

    def stopped(self, at_us: int) -> list[GeminiEntry]:
        """What was said from the start of speech up to here."""
        start_us, self._from_us = self._from_us, None
        if start_us is None:
            return []
        said = [(piece.within(start_us, at_us), piece.rate) for piece in self._pieces]
        self._forget(at_us)
        return [GeminiEntry("user", media=data, rate=rate) for data, rate in said if data]

    def unfinished(self) -> list[AudioChunk]:
        """What has come since the speech began that goes on, for another stream that is to hear it."""
        if self._from_us is None:
            return []
        return [AudioChunk(p.data, p.rate, p.start_us) for p in self._pieces if _stop_us(p) > self._from_us]

    def _forget(self, until_us: int) -> None:
        while len(self._pieces) > 1 and self._pieces[1].start_us <= until_us:
            del self._pieces[0]


def _stop_us(piece: _Piece) -> int:
    return piece.start_us + len(piece.data) // 2 * 1_000_000 // piece.rate
