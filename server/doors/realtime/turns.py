"""Turns that are heard: the sound of a session with turn detection, from what a client sends to the items of what was
said. The stream hears by itself when somebody speaks (`TurnDetection`); here is what that is called on this wire.

In: sound, and where speech starts and stops. Out: samples with their media times, and items.
"""

from __future__ import annotations

from typing import Any

from ....streams.item import AudioChunk
from ....streams.requests.turns import TurnDetection
from ..heard import KEPT_US, HeardPiece, SaidSound, SoundClock
from .items import ContentPart, RealtimeItem, check_sound
from .sound import SoundFormat
from .wire import Fault, new_id

# What is kept beside the prefix where the model decides when it speaks: nothing tells then of silence.
_LIVE_US = 30_000_000
_THRESHOLD = 0.5  # of a client that has none of its own: the detector knows best


def detection_of(config: dict[str, Any] | None, decides: bool) -> TurnDetection | None:
    """What a stream is asked to listen for. `decides`: in its format the model decides when it speaks, so the stream
    only tells of speech."""
    if config is None:
        return None
    respond = config["create_response"] and not decides
    interrupt = config["interrupt_response"] and not decides
    if config["type"] == "semantic_vad":
        return TurnDetection(semantic=config["eagerness"], respond=respond, interrupt=interrupt)
    threshold, idle_ms = config["threshold"], config["idle_timeout_ms"]
    return TurnDetection(
        threshold=None if threshold == _THRESHOLD else min(max(threshold, 0.05), 0.95),
        prefix_ms=int(config["prefix_padding_ms"]),
        silence_ms=max(100, int(config["silence_duration_ms"])),
        idle_ms=max(100, int(idle_ms)) if idle_ms is not None and respond else None,
        respond=respond,
        interrupt=interrupt,
    )


class HeardSound:
    """The sound of one session that a stream listens to. `clock`: of all sound that its client sends."""

    def __init__(self, clock: SoundClock) -> None:
        self._clock = clock
        self._said = SaidSound[SoundFormat]()
        self.cleared_us = 0  # what came before was taken back
        self.speaks: str | None = None  # the id of the item that what is being said becomes

    @property
    def now_us(self) -> int:
        """How much sound was appended, listened to or not."""
        return self._clock.now_us

    @property
    def from_us(self) -> int:
        """Where what is being said began."""
        return self._said.from_us or 0

    def append(self, data: bytes, form: SoundFormat, detection: TurnDetection | None) -> AudioChunk:
        """The next sound, for the stream, which listens so."""
        check_sound(data, form, "audio")
        start_us = self._clock.count(len(data) // form.width, form.rate)
        return self.take(HeardPiece(start_us, data, form), detection)

    def take(self, piece: HeardPiece[SoundFormat], detection: TurnDetection | None) -> AudioChunk:
        """Sound for the stream that the clock has counted."""
        quiet = self.speaks is None and detection is not None and not detection.acts
        self._said.most_us = _LIVE_US + detection.prefix_ms * 1000 if quiet and detection else KEPT_US
        self._said.append(piece.start_us, piece.data, piece.form)
        return piece.form.chunk(piece.data, piece.start_us)

    def started(self, at_us: int, id: str | None = None) -> str:
        """Somebody has begun to speak, or goes on in another item; the id of the item that it becomes."""
        self.speaks = id or new_id("item")
        self._said.start(max(at_us, self.cleared_us))
        return self.speaks

    def silent(self, until_us: int) -> None:
        """Nobody spoke up to here."""
        self._said.silent(until_us)

    def stopped(self, at_us: int) -> RealtimeItem:
        """What was said from the start of speech up to here, of which the model may have to be shown all again. Fault
        where nobody has begun to speak, or nothing came since."""
        if self.speaks is None or at_us <= self.from_us:
            why = "nobody speaks" if self.speaks is None else "nothing was said since it was committed or cleared"
            raise Fault(f"Error committing input audio buffer: {why}.", "input_audio_buffer_commit_empty")
        id, self.speaks = self.speaks, None
        said = self._said.stop(at_us)
        pieces = [ContentPart("audio", data=data, form=form) for data, form in said or ()]
        item = RealtimeItem(id, "message", "user", pieces or [ContentPart("audio")])
        item.forgotten = not pieces
        return item

    def never_mind(self, at_us: int) -> None:
        """Nobody speaks any more, and nothing was said up to here."""
        if self.speaks is not None:
            self.speaks = None
            self._said.stop(at_us)

    def unheard(self) -> list[HeardPiece[SoundFormat]]:
        """What a stream has to hear that takes the place of the one which listened."""
        return self._said.unheard()

    def clear(self) -> None:
        """Forget what was sent and is not yet an item. Who speaks goes on from here."""
        self.cleared_us = self.now_us
        self._said.clear(self.now_us)
