"""What waits for an encoder in another process while that is away. In: grants and prompts that could not be encoded.
Out: the same, first those that came first, and those that have waited too long. It knows neither towers nor sockets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from .messages import Converse, Grant

Held = Grant | Converse
# Between two tries: at first, and at most.
_FIRST_SECONDS, _LAST_SECONDS = 0.05, 1.0


class Absence:
    """All wait in one row, so that the sound of a stream is encoded in order. `seconds`: how long each waits at most.
    `clock` gives seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._row: deque[tuple[float, Held]] = deque()
        self._pause = _FIRST_SECONDS
        self._began: float | None = None

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._row)

    @property
    def held(self) -> int:
        """Segments and prompts that wait."""
        return sum(len(one.segments) if isinstance(one, Grant) else 1 for _, one in self._row)

    def wait(self, one: Held) -> None:
        """It waits behind the others."""
        self._row.append((self._clock(), one))

    @property
    def first(self) -> Held:
        return self._row[0][1]

    def leave(self, left: Held | None) -> None:
        """Of the first, `left` still waits; None: it is done."""
        since, _ = self._row.popleft()
        if left is not None:
            self._row.appendleft((since, left))

    def over(self) -> list[Held]:
        """Those that have waited for too long, which wait no more."""
        now = self._clock()
        found = [one for since, one in self._row if now - since >= self._seconds]
        self._row = deque((since, one) for since, one in self._row if now - since < self._seconds)
        return found

    def begin(self) -> bool:
        """The encoder is away; whether that is new."""
        new, self._began = self._began is None, self._began or self._clock()
        return new

    def end(self) -> float | None:
        """The encoder is there; for how many seconds it was away, where it was."""
        away = None if self._began is None else self._clock() - self._began
        self._began, self._pause = None, _FIRST_SECONDS
        return away

    def pause(self) -> float:
        """Seconds until the next try."""
        pause, self._pause = self._pause, min(2 * self._pause, _LAST_SECONDS)
        return pause
