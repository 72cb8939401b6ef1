"""Whose rows go into a step before older ones: those of streams whose media is due.

They come in the order of their deadlines. No other stream starves for that: after a few steps in which the oldest of
the others got nothing appended, it goes first. No clock: who is due is told.
"""

from __future__ import annotations

from .policy import Decision, Need, age

# Steps in which the oldest need without a deadline may get nothing; in the next one it goes first.
PATIENCE = 3


class Precedence:
    """`due`: streams whose media is due, the earliest deadline first."""

    def __init__(self) -> None:
        self.due: list[int] = []
        self._oldest: Need | None = None  # of those with rows to append that are not due
        self._passed = 0  # steps in a row in which that got nothing appended

    def first(self, needs: list[Need]) -> list[int]:
        """The streams that go before older ones, in order. `needs`: of all that have something to do."""
        self._oldest = None
        if not self.due:
            return []
        due = set(self.due)
        others = (need for need in needs if len(need.pieces) > need.token and need.stream not in due)
        self._oldest = min(others, key=age, default=None)
        if self._oldest is not None and self._passed >= PATIENCE:
            return [self._oldest.stream, *self.due]
        return self.due

    def took(self, decision: Decision) -> None:
        """What the step holds, of which `first` was asked."""
        oldest = self._oldest
        waits = oldest is not None and dict(decision.grants).get(oldest.stream, 0) <= oldest.token
        self._passed = self._passed + 1 if waits else 0
