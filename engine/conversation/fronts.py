"""What a stream still holds from before its window: the rows that are pinned, and its text memory.

Each is a run of rows on a clock of its own that grows for ever. Their keys stay as they were computed; where they count
as standing is said by their lift: right before what comes after them. Pages and numbers only, no tensors.
"""

from __future__ import annotations

from collections import deque

import msgspec
import numpy as np

from ...streams.event import TranscriptRow
from ..pages import Edit, PagePool, PageTable
from ..plan import Front
from ..span import Rows


class OldRows(msgspec.Struct, eq=False):
    """A front of one stream: the rows of `table`, which stand at positions `[first, stop)` of its own clock. `laid`:
    what they are, each run with its row in the stream."""

    table: PageTable
    first: int = 0
    stop: int = 0
    laid: deque[tuple[int, Rows]] = msgspec.field(default_factory=deque)

    @property
    def rows(self) -> int:
        return self.table.length - self.table.begin

    @property
    def span(self) -> int:
        """How many positions it takes."""
        return self.stop - self.first

    def copy(self) -> OldRows:
        return OldRows(self.table.fork(), self.first, self.stop, deque(self.laid))

    def add(self, row: int, words: Rows) -> tuple[Edit, np.ndarray]:
        """These rows, which left the window, go behind its own. Returns what that did to its pages, and how far each of
        them turns.

        Raises OutOfPages, and nothing has changed then.
        """
        edit = self.table.append(len(words))
        places = np.arange(self.stop, self.stop + len(words))
        self.laid.append((row, msgspec.structs.replace(words, positions=np.stack([places] * 3))))
        self.stop += len(words)
        return edit, places - words.positions[0]

    def cut(self, rows: int) -> None:
        """Keep its first `rows` rows."""
        self.table.truncate(self.table.begin + rows)
        kept, left = deque[tuple[int, Rows]](), rows
        for row, run in self.laid:
            if left:
                kept.append((row, run.part(0, min(left, len(run)))))
                left -= len(kept[-1][1])
        self.laid = kept
        self.stop = int(kept[-1][1].positions.max()) + 1 if kept else self.first

    def shorten(self, most: int) -> None:
        """Let its oldest runs go until it has no more rows than this."""
        gone = 0
        while self.laid and self.rows - gone > most:
            gone += len(self.laid.popleft()[1])
        self.table.slide(self.table.begin + gone)
        self.first = int(self.laid[0][1].positions.min()) if self.laid else self.stop


class Fronts:
    """Both fronts of one stream, `pinned` and `memory`, before a window that begins at `position`. `tables`: the
    numbers of their page tables in the runner. `most`: how many rows are pinned whatever is said; `reply`: the reply
    whose question is pinned behind them."""

    def __init__(self, pool: PagePool, tables: list[int]) -> None:
        self.tables = tables
        self.pinned, self.memory = OldRows(PageTable(pool)), OldRows(PageTable(pool))
        self.position = 0
        self.most = 0
        self.reply = 0
        self.seen: tuple[Front, ...] = ()  # as steps take them

    @property
    def rows(self) -> int:
        return self.pinned.rows + self.memory.rows

    @property
    def lowest(self) -> int:
        """The position at which what the stream holds begins, as it counts now."""
        return self.position - self.pinned.span - self.memory.span

    def copy(self, tables: list[int]) -> Fronts:
        twin = object.__new__(Fronts)
        twin.__dict__.update(self.__dict__)
        twin.tables, twin.pinned, twin.memory = tables, self.pinned.copy(), self.memory.copy()
        twin.stand(self.position)
        return twin

    def stand(self, position: int) -> None:
        """The window begins at this position from now on."""
        self.position = position
        lifts = self._lifts()
        self.seen = tuple(
            Front(number, table.begin - table.base, table.length - table.base, lift)
            for number, (front, lift) in zip(self.tables, lifts, strict=True)
            if (table := front.table).length > table.begin
        )

    def transcript(self) -> list[TranscriptRow]:
        """What they hold, at the positions at which it counts as standing."""
        return [
            TranscriptRow(row, run.ids.tolist(), (run.positions + lift).tolist(), run.seen)
            for front, lift in self._lifts()
            for row, run in front.laid
        ]

    def _lifts(self) -> list[tuple[OldRows, int]]:
        """How much higher each counts as standing than on its own clock."""
        memory = self.position - self.memory.stop
        return [(self.pinned, memory + self.memory.first - self.pinned.stop), (self.memory, memory)]
