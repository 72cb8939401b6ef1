"""The sound of one Gemini Live connection that its stream listens to, and what of it was speech.

In: sound, and where speech starts and stops. Out: samples with their media times, and entries of the history.
"""

from __future__ import annotations

from typing import NamedTuple

from ....streams.item import AudioChunk
from ..heard import KEPT_US, SaidSound, SoundClock
from .history import KEPT_BYTES, GeminiEntry
from .inputs import RATE


class PcmForm(NamedTuple):
    """PCM of 16 bits at this rate."""

    rate: int
    width: int = 2


class HeardActivity:
    """All the sound of a connection that the stream listens to."""

    def __init__(self) -> None:
        self._clock = SoundClock()
        self._said = SaidSound[PcmForm]()
        self.form = PcmForm(RATE)  # of the newest sound

    @property
    def now_us(self) -> int:
        """How much sound was appended."""
        return self._clock.now_us

    def append(self, data: bytes, rate: int) -> AudioChunk:
        """The next sound, whole samples of 16 bits, for the stream."""
        self.form = form = PcmForm(rate)
        self._said.most_us = min(KEPT_US, KEPT_BYTES * 1_000_000 // (rate * form.width))
        start_us = self._clock.count(len(data) // form.width, rate)
        self._said.append(start_us, data, form)
        return AudioChunk(data, rate, start_us)

    def started(self, at_us: int) -> None:
        """Somebody has begun to speak."""
        self._said.start(at_us)

    def silent(self, until_us: int) -> None:
        """Nobody spoke up to here."""
        self._said.silent(until_us)

    def stopped(self, at_us: int) -> list[GeminiEntry]:
        """What was said from the start of speech up to here. What was too long to be kept is one entry without media
        (`GeminiHistory.add`)."""
        said = self._said.stop(at_us)
        if said is None:
            return [GeminiEntry("user", media=b"", rate=self.form.rate)]
        return [GeminiEntry("user", media=data, rate=form.rate) for data, form in said]

    def unheard(self) -> list[AudioChunk]:
        """What another stream is to hear that listens from now on: speech that goes on, or has not been noticed yet."""
        return [AudioChunk(piece.data, piece.form.rate, piece.start_us) for piece in self._said.unheard()]
