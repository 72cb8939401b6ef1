"""Turns that are heard: the sound of a session with turn detection, from what a client sends to the items of what was
said. The stream hears by itself when somebody speaks (`TurnDetection`); here is what that is called on this wire.

In: sound, and where speech starts and stops. Out: samples with their media times, and items.
"""

from __future__ import annotations

from typing import Any

from ....streams.item import AudioChunk
from ....streams.requests.turns import TurnDetection
from .items import ContentPart, RealtimeItem, check_sound
from .sound import SoundFormat
from .wire import Fault, new_id

# What is kept while nobody is known to speak: speech is heard a little after it starts, and begins before that.
_KEPT_US = 10_000_000
# The most of one turn that is kept for its item.
_MOST_US = 300_000_000
_THRESHOLD = 0.5  # of a client that has none of its own: the detector knows best


def detection_of(config: dict[str, Any] | None, decides: bool) -> TurnDetection | None:
    """What a stream is asked to listen for. `decides`: in its format the model decides when it speaks, so the stream
    only tells of speech."""
    if config is None:
        return None
    threshold = config["threshold"]
    return TurnDetection(
        threshold=None if threshold == _THRESHOLD else min(max(threshold, 0.05), 0.95),
        prefix_ms=int(config["prefix_padding_ms"]),
        silence_ms=max(100, int(config["silence_duration_ms"])),
        idle_ms=config["idle_timeout_ms"] and max(100, int(config["idle_timeout_ms"])),
        respond=config["create_response"] and not decides,
        interrupt=config["interrupt_response"] and not decides,
    )


class HeardSound:
    """The sound of one session, on its own clock: all that was ever appended."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, bytes, SoundFormat]] = []  # the first sample's time, in microseconds, and sound
        self._units = 0  # 24,000 a second
        self.speaks: str | None = None  # the id of the item that what is being said becomes
        self._from_us = 0

    @property
    def now_us(self) -> int:
        """How much sound was appended."""
        return self._units * 1_000_000 // 24_000

    def append(self, data: bytes, form: SoundFormat) -> AudioChunk:
        """The next sound, for the stream."""
        check_sound(data, form, "audio")
        start_us = self.now_us
        self._units += len(data) // form.width * (24_000 // form.rate)
        self._pieces.append((start_us, data, form))
        self._forget(self.now_us - (_KEPT_US if self.speaks is None else _MOST_US))
        return form.chunk(data, start_us)

    def started(self, at_us: int) -> str:
        """Somebody has begun to speak; the id of the item that it becomes."""
        self.speaks, self._from_us = new_id("item"), at_us
        return self.speaks

    def stopped(self, at_us: int) -> RealtimeItem:
        """What was said from the start of speech up to here. Fault where nobody has begun to speak."""
        if self.speaks is None:
            raise Fault("Error committing input audio buffer: nobody speaks.", "input_audio_buffer_commit_empty")
        form = self._pieces[-1][2]
        said = b"".join(_within(piece, self._from_us, at_us) for piece in self._pieces if piece[2] == form)
        item = RealtimeItem(self.speaks, "message", "user", [ContentPart("audio", data=said, form=form)])
        self.speaks = None
        self._forget(at_us)
        return item

    def clear(self) -> None:
        """Forget what was sent and is not yet an item."""
        self._pieces, self.speaks = [], None

    def _forget(self, until_us: int) -> None:
        """Let go of what ends before this time."""
        while len(self._pieces) > 1 and self._pieces[1][0] <= until_us:
            del self._pieces[0]


def _within(piece: tuple[int, bytes, SoundFormat], start_us: int, stop_us: int) -> bytes:
    """The part of a piece between two times."""
    first_us, data, form = piece
    places = [max(0, round((us - first_us) * form.rate / 1_000_000)) * form.width for us in (start_us, stop_us)]
    return data[places[0] : places[1]]
