"""How far the draft model has read a stream, and what it reads next. It changes nothing of the stream."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from ..conversation.state import StreamState
from ..span import Rows


class DraftReading:
    """Of one stream: rows [0, `upto`) are in the draft model's cache while the run that ends there is laid."""

    def __init__(self) -> None:
        self._upto = 0
        self._last: Rows | None = None

    def copy(self) -> DraftReading:
        twin = DraftReading()
        twin._upto, twin._last = self._upto, self._last
        return twin

    def upto(self, stream: StreamState) -> int:
        """The row behind the last one that it has read; 0 where what it has read is not there any more."""
        place = bisect_left(stream.starts, self._upto) - 1
        return self._upto if 0 <= place and stream.laid[place] is self._last else 0

    def reads(self, stream: StreamState, upto: int) -> None:
        """Rows before this one are read."""
        self._upto, self._last = upto, stream.laid[bisect_left(stream.starts, upto) - 1]

    def unread(self, stream: StreamState, last: int, most: int) -> list[Rows]:
        """The rows before row `last` that it has not read, from the first on, `most` of them at most, as words."""
        first, runs = self.upto(stream), list[Rows]()
        last = min(last, first + most)
        place = max(0, bisect_left(stream.starts, first + 1) - 1)
        while first < last:
            run, start = stream.laid[place], stream.starts[place]
            part = run.part(first - start, min(len(run), last - start))
            runs.append(msgspec.structs.replace(part, stored=None, seen=None))
            first, place = start + len(run), place + 1
        return runs
