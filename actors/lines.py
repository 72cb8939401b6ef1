"""Several encoders of one engine: each question goes to that which has kept it waiting least, and to the next where one
is away. In: their lines. Out: what one line gives. An encoder keeps nothing of a stream, so any may be asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from ..engine.remote import Hello, RemoteAnswer, RemoteQuestion
from ..errors import EncoderAwayError

log = logging.getLogger("penstock.actors")

# Between two tries of one that is away, while others are there.
_PAUSE_SECONDS = 2.0
# Between two tries at the start.
_START_SECONDS = 0.2


class EncoderPort(Protocol):
    """A connection to an encoder (remote.py)."""

    url: str

    @property
    def here(self) -> int:
        """Whether it was reached when it was asked last; of several, how many were."""
        ...

    @property
    def lost(self) -> int:
        """How often a connection has ended."""
        ...

    @property
    def hello(self) -> Hello:
        """What the encoder that was there last has said of itself."""
        ...

    def ask(self, question: RemoteQuestion) -> RemoteAnswer: ...

    def check(self, until: float) -> None: ...

    def close(self) -> None: ...


class EncoderLines:
    """Lines as one, of which at least one has to be there."""

    def __init__(self, lines: Sequence[EncoderPort]) -> None:
        self._lines = lines
        self._waited = dict.fromkeys(lines, 0.0)  # seconds for answers, as if all had been there from the start
        self._again = dict.fromkeys(lines, 0.0)  # when one that is away is tried
        self.url = ",".join(line.url for line in lines)

    @property
    def here(self) -> int:
        return sum(line.here for line in self._lines)

    @property
    def lost(self) -> int:
        return sum(line.lost for line in self._lines)

    @property
    def hello(self) -> Hello:
        return next((line for line in self._lines if line.here), self._lines[0]).hello

    def ask(self, question: RemoteQuestion) -> RemoteAnswer:
        """The answer of the first that is there. EncoderAwayError where none is; another PenstockError where one
        refuses."""
        why = []
        for line in self._order():
            begun, here = time.monotonic(), line.here
            try:
                return line.ask(question)
            except EncoderAwayError as error:
                why.append(str(error))
                self._again[line] = time.monotonic() + _PAUSE_SECONDS
                if here:
                    log.warning("%s; others are asked", error)
            finally:
                if not here and line.here:  # what it has not answered it need not make up for
                    self._waited[line] = max(self._waited.values())
                self._waited[line] += time.monotonic() - begun
        raise EncoderAwayError("; ".join(why))

    def check(self, until: float) -> None:
        """See that one is there and as expected, and try again until `until` (`time.monotonic`). EncoderAwayError."""
        while True:
            why = []
            for line in self._lines:
                try:
                    line.check(0.0)
                except EncoderAwayError as error:
                    why.append(str(error))
            if len(why) < len(self._lines):
                for error in why:
                    log.warning("%s; others are asked", error)
                return
            if time.monotonic() >= until:
                raise EncoderAwayError("; ".join(why))
            time.sleep(_START_SECONDS)

    def close(self) -> None:
        """End all connections, also under a call that waits; there will be no other."""
        for line in self._lines:
            line.close()

    def _order(self) -> list[EncoderPort]:
        """Those that are there, and first those whose turn it is to be tried; the others last."""
        now = time.monotonic()

        def place(line: EncoderPort) -> tuple[bool, float]:
            return not line.here and now < self._again[line], self._waited[line] if line.here else 0.0

        return sorted(self._lines, key=place)
