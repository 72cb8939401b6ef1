"""The input audio buffer of a session without turn detection: what a client has sent and not yet committed.

It is held here, so that `clear` can take it back; with `commit` it is an item. In: sound as the client writes it. Out:
pieces of items. It knows no stream.
"""

from __future__ import annotations

from ..heard import HeardPiece, SoundClock
from .items import ContentPart, RealtimeItem, check_sound
from .sound import SoundFormat
from .wire import Fault, new_id

# The most bytes that are held for a commit: 5 minutes of PCM.
MOST_HELD = 15 * 2**20
# The least that is committed, as in OpenAI's API: models do not hear less than 30 ms.
_LEAST_MS = 100


class SoundBuffer:
    """The buffer. `clock`: of all sound that its client sends."""

    def __init__(self, clock: SoundClock) -> None:
        self._clock = clock
        self._held: list[bytes] = []
        self._bytes = 0
        self._from_us = 0
        self._form: SoundFormat | None = None

    def append(self, data: bytes, form: SoundFormat) -> None:
        """Hold more sound. Fault where it is too much, or not written as what is held."""
        check_sound(data, form, "audio")
        if self._bytes + len(data) > MOST_HELD:
            got = self._bytes + len(data)
            raise Fault(
                f"audio: at most {MOST_HELD} bytes wait for a commit, got {got}", "input_audio_buffer_full", "audio"
            )
        if self._held and form != self._form:
            raise Fault("audio: expected the format in which the buffer began; commit or clear it first", param="audio")
        if not data:
            return
        start_us = self._clock.count(len(data) // form.width, form.rate)
        if not self._held:
            self._from_us, self._form = start_us, form
        self._held.append(data)
        self._bytes += len(data)

    def commit(self) -> RealtimeItem:
        """What is held, as an item. Fault where that is too little; it is still held then."""
        form = self._form
        ms = self._bytes * 1000 / (form.width * form.rate) if form is not None else 0
        if ms < _LEAST_MS:
            raise Fault(
                f"Error committing input audio buffer: the buffer is too small: expected at least {_LEAST_MS} ms of "
                f"sound, got {ms:.2f} ms.",
                "input_audio_buffer_commit_empty",
            )
        held = self.take()
        assert held is not None
        return RealtimeItem(new_id("item"), "message", "user", [ContentPart("audio", data=held.data, form=held.form)])

    def take(self) -> HeardPiece[SoundFormat] | None:
        """What is held, if anything is; it is held no longer."""
        held, form = b"".join(self._held), self._form
        self.clear()
        return HeardPiece(self._from_us, held, form) if held and form is not None else None

    def clear(self) -> None:
        """Forget what is held."""
        self._held, self._bytes = [], 0
