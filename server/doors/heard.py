"""The sound that a client sends while a stream listens: on one clock, and what of it is being said.

Items, `SpeechStarted.at_us` and what a client is told all count in the time of one `SoundClock`: all sound that the
client has ever sent, whether a stream heard it or not. In: bytes as the client wrote them, and where speech starts and
stops. Out: their media times, and the bytes of what was said. It knows no wire, no item and no stream.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, Protocol, TypeVar

# The most of the newest sound that is kept: a turn may be as long, and a stream may be so late with what it hears.
KEPT_US = 300_000_000


class WrittenSound(Protocol):
    """How a client writes sound: samples a second, and bytes of a sample."""

    @property
    def rate(self) -> int: ...

    @property
    def width(self) -> int: ...


_Form = TypeVar("_Form", bound=WrittenSound)


class SoundClock:
    """How much sound a client has sent."""

    def __init__(self) -> None:
        self._base_us = 0  # the time at which sound of this rate began
        self._samples = 0  # since then
        self._rate = 1

    @property
    def now_us(self) -> int:
        """The time of the next sample, in microseconds."""
        return self._base_us + self._samples * 1_000_000 // self._rate

    def count(self, samples: int, rate: int) -> int:
        """So many samples more, at `rate` a second; the time of the first of them in microseconds."""
        start_us = self.now_us
        if rate != self._rate:
            self._base_us, self._samples, self._rate = start_us, 0, rate
        self._samples += samples
        return start_us


class HeardPiece(NamedTuple, Generic[_Form]):
    """Sound as it was written, from this time on."""

    start_us: int
    data: bytes
    form: _Form

    def within(self, start_us: int, stop_us: int | None) -> HeardPiece[_Form]:
        """The part of it between two times; `stop_us` None: to its end."""
        first, last = self._place(start_us), len(self.data) if stop_us is None else self._place(stop_us)
        return HeardPiece(max(self.start_us, start_us), self.data[first:last], self.form)

    def _place(self, us: int) -> int:
        return max(0, round((us - self.start_us) * self.form.rate / 1_000_000)) * self.form.width


class SaidSound(Generic[_Form]):
    """The newest sound, of which a stream tells when somebody begins and stops to speak.

    from_us: where what is being said began; None: nobody is known to speak. `most_us`: how much is kept at the most.
    """

    def __init__(self, most_us: int = KEPT_US) -> None:
        self.most_us = most_us
        self.from_us: int | None = None
        self._pieces: deque[HeardPiece[_Form]] = deque()
        self._open_us = 0  # up to here all was said, or was no speech
        self._gone_us = 0  # up to here nothing is kept

    def append(self, start_us: int, data: bytes, form: _Form) -> None:
        """The next sound; `start_us` as `SoundClock.count` has it."""
        if not data:
            return
        piece = HeardPiece(start_us, data, form)
        self._pieces.append(piece)
        self._forget(start_us + len(data) // form.width * 1_000_000 // form.rate - self.most_us)

    def start(self, at_us: int) -> None:
        """Somebody has begun to speak there."""
        self.from_us = at_us

    def silent(self, until_us: int) -> None:
        """Up to here there was no speech but what was told: nobody will ask for it."""
        if self.from_us is None:
            self._open_us = max(self._open_us, until_us)
            self._forget(until_us)

    def stop(self, at_us: int) -> list[tuple[bytes, _Form]] | None:
        """What was said from the start of speech up to here, in one piece for each form in which it is written; None
        where it was too long to be kept. Nobody speaks any more."""
        start_us, self.from_us = self.from_us, None
        assert start_us is not None, "expected somebody who speaks"
        whole = start_us >= self._gone_us
        said = _joined([piece.within(start_us, at_us) for piece in self._pieces])
        self._open_us = at_us
        self._forget(at_us)
        return [(piece.data, piece.form) for piece in said] if whole else None

    def unheard(self) -> list[HeardPiece[_Form]]:
        """What another stream has to hear that listens from now on: all since the speech began that goes on, or since
        speech last stopped."""
        start_us = self._open_us if self.from_us is None else self.from_us
        return _joined([piece.within(start_us, None) for piece in self._pieces])

    def clear(self, at_us: int) -> None:
        """Forget all up to here. What is being said goes on from here."""
        self._pieces.clear()
        self._open_us = self._gone_us = at_us
        self.from_us = None if self.from_us is None else at_us

    def _forget(self, until_us: int) -> None:
        """Let go of the pieces that end before this time."""
        while len(self._pieces) > 1 and self._pieces[1].start_us <= until_us:
            self._pieces.popleft()
            self._gone_us = self._pieces[0].start_us


def _joined(pieces: list[HeardPiece[_Form]]) -> list[HeardPiece[_Form]]:
    """Pieces that are not empty, those of one form that follow each other as one."""
    runs: list[list[HeardPiece[_Form]]] = []
    for piece in pieces:
        if piece.data:
            if runs and runs[-1][0].form == piece.form:
                runs[-1].append(piece)
            else:
                runs.append([piece])
    return [HeardPiece(run[0].start_us, b"".join(piece.data for piece in run), run[0].form) for run in runs]
