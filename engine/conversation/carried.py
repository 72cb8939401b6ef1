"""Of a model whose layers keep one state of all rows: where a stream's states lie, the current one and some before it.

No row can be taken out of a state. So a stream that goes back goes to the newest state that is kept from before, and
the rows after that are fed once more. Numbers only: rows, and entries of the runner's states.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ...errors import PenstockError
from ..plan import STATES, StateUse
from ..span import Rows

# Rows between the two states that are kept, before the older one is given up.
_APART = 512
# The newest words may be taken back, to be spelt together with what follows: mostly no more than so many rows.
_LAST_WORDS = 16


class Carried:
    """The states of the stream with page table `slot`. `held`: (after how many rows, entry), the newest last: that is
    the one of the rows in the cache. The two before it are kept to go back to. `lost`: the embeddings of rows before
    this are gone, so that they cannot be fed once more."""

    def __init__(self, slot: int) -> None:
        self._entries = range(slot * STATES, (slot + 1) * STATES)
        self.held: list[tuple[int, int]] = []
        self.lost = 0

    @property
    def entries(self) -> list[int]:
        """Where its states lie, in order."""
        return [entry for _, entry in self.held]

    @property
    def least_row(self) -> int:
        """The row from which on all can be cut."""
        return min((row for row, _ in self.held if row >= self.lost), default=0) if self.lost else 0

    def copy(self, slot: int | None = None) -> Carried:
        """The same once more, in the same entries, or in those of another slot."""
        twin = object.__new__(Carried)
        twin.__dict__.update(self.__dict__)
        twin.held = list(self.held)
        if slot is not None:
            twin._entries = range(slot * STATES, (slot + 1) * STATES)
            twin.held = [(row, entry) for (row, _), entry in zip(self.held, twin._entries, strict=False)]
        return twin

    def oldest(self, firm: int) -> int:
        """The row of the oldest state that is kept, among rows before `firm`; 0 where there is none."""
        row = self.held[0][0] if len(self.held) > 1 else 0
        return row if row <= firm else 0

    def reaches(self, row: int) -> bool:
        """Whether the stream can be cut there: what is to be fed once more has its embeddings."""
        return self._before(row) >= min(self.lost, row)

    def back_to(self, row: int) -> int:
        """The stream is cut there. Returns the row after which it is to be fed once more. PenstockError where it cannot
        be."""
        if not self.reaches(row):
            raise PenstockError(f"expected a cut from row {self.least_row} on, since older media is gone, got {row}")
        self.lost = min(self.lost, row)
        while self.held and self.held[-1][0] > row:
            self.held.pop()
        return self._before(row)

    def feed(
        self, first: int, count: int, said: bool, laid: Sequence[Rows], starts: Sequence[int], firm: int
    ) -> StateUse:
        """The next `count` rows are fed, of those that are laid, from row `first` on. `said`: that is a token of a
        reply. Rows before `firm` are not taken back for words that follow."""
        row, begin = self.held[-1] if self.held else (0, None)
        assert row == first, f"expected to feed from row {row} on, whose state is held, got {first}"
        kept, keep = self.held[:-1], self._keep(first, count, said, laid, starts, firm)
        if keep is not None and len(kept) > 1:
            far = keep - kept[0][0] > _APART and kept[1][0] <= firm
            del kept[0 if far else 1]
        used = {begin, *(entry for _, entry in kept)}
        free = [entry for entry in self._entries if entry not in used]
        ends = []
        if keep == first and begin is not None:
            kept.append((first, begin))
        elif keep is not None:
            kept.append((keep, free[-1]))
            ends.append((keep - first, free[-1]))
        self.held = [*kept, (first + count, free[0])]
        return StateUse(begin, (*ends, (count, free[0])))

    def _keep(
        self, first: int, count: int, said: bool, laid: Sequence[Rows], starts: Sequence[int], firm: int
    ) -> int | None:
        """After which row a state is kept while `count` rows from `first` on are fed; None: after none of them.

        A reply is drawn from the last row, may be cut before its first token and be drawn again: so before that row.
        Of a long prompt and of a long reply now and then.
        """
        rows, newest = starts[-1] + len(laid[-1]), self.held[-2][0] if len(self.held) > 1 else 0
        row = max(first, rows - max(1, min(rows - firm, _LAST_WORDS)))
        if first + count < rows or (said and count == 1):
            row = first if first - newest >= _APART else newest
        place = bisect_right(starts, row) - 1
        if laid[place].atomic and starts[place] < row < starts[place] + len(laid[place]):
            row = starts[place]
        return row if max(first, newest + 1) <= row < first + count else None

    def _before(self, row: int) -> int:
        """The row of the newest state up to `row`; 0: from none."""
        return max((at for at, _ in self.held if at <= row), default=0)
