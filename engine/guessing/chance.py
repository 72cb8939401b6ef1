"""How likely guesses of one stream are right, and how many of them are worth what they cost. Numbers only."""

from __future__ import annotations

# Of a stream of which nothing is known so many of so many guesses were right; what is known fades by this in a step.
_RIGHT, _OF, _FADES = 1.0, 1.5, 0.9
# A stream begins with so many steps without guesses, and tries so many with them whatever they cost.
_PLAIN, _TRIES = 4, 4
# Steps without guesses where they were not worth it; twice as many each time, up to the second, until so many steps on
# end were worth it.
_PAUSE, _LONGEST, _LASTS = 16, 512, 32


class Chance:
    """Of one stream."""

    def __init__(self) -> None:
        self._right, self._of = _RIGHT, _OF
        self._pause, self._rests, self._tries = _PAUSE, _PLAIN, _TRIES
        self._lasts = 0

    def worth(self, most: int, cost: float) -> int:
        """How many guesses, up to `most`, the next step has. `cost`: how many tokens all replies say in the time that
        one guess takes. A guess is worth it while it is likelier than that to be right with all before it."""
        if most < 1:
            return 0
        if self._rests:
            self._rests -= 1
            return 0
        share = self._right / self._of
        if self._tries:
            self._tries -= 1
            return most
        count = 0
        while count < most and share ** (count + 1) > cost:
            count += 1
        self._lasts = self._lasts + 1 if count else 0
        if self._lasts > _LASTS:
            self._pause = _PAUSE
        if not count:
            self._right, self._of, self._tries = _RIGHT, _OF, _TRIES
            self._rests, self._pause = self._pause, min(2 * self._pause, _LONGEST)
        return count

    def learn(self, right: int, guesses: int) -> None:
        """Of so many guesses in a step the first `right` were right."""
        self._right = self._right * _FADES + right
        self._of = self._of * _FADES + right + (right < guesses)
