"""Likelihoods of speech, window after window, to starts and stops. Knows neither sound nor times."""

from __future__ import annotations

from enum import StrEnum

import msgspec

# A likelihood so far under the threshold says that there is no speech; between the two, what was before goes on.
_BAND = 0.15
# So many windows without speech may be inside speech that begins.
_GAP = 3


class SpeechEdge(StrEnum):
    """What a window changes."""

    STARTS = "starts"
    STOPS = "stops"


class SpeechRule(msgspec.Struct):
    """Where speech starts and stops.

    speaking: it has started and not stopped.
    back: how many windows ago speech began that has started or may start, the newest one included; 0: there is none.
    loud, quiet: windows with speech since it began, and windows without since the last one with speech.
    """

    speaking: bool = False
    back: int = 0
    loud: int = 0
    quiet: int = 0

    def step(self, likely: float, threshold: float, starts: int, stops: int) -> SpeechEdge | None:
        """Take the likelihood of the next window. Speech starts after `starts` windows with speech, in which few are
        without, and stops after `stops` windows in a row without."""
        speech, none = likely >= threshold, likely < threshold - _BAND
        if self.back or speech:
            self.back += 1
        if speech:
            self.loud, self.quiet = self.loud + 1, 0
        elif self.back and (none or self.quiet):
            self.quiet += 1
        if self.speaking and self.quiet >= stops:
            self.clear()
            return SpeechEdge.STOPS
        if not self.speaking and self.quiet > _GAP:
            self.clear()
        if not self.speaking and self.back and self.loud >= starts:
            self.speaking = True
            return SpeechEdge.STARTS
        return None

    def clear(self) -> None:
        """There is no speech, and none that may start."""
        self.speaking, self.back, self.loud, self.quiet = False, 0, 0, 0
