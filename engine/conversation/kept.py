"""How many bytes of spans are kept so that streams can be fed anew.

Counts; knows streams only by what they have laid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ..span import Rows
from .state import StreamState


class Kept:
    """The count over all streams, and what goes when it is more than `limit_bytes`.

    Memory that several runs hold, as those of forks do, counts once and until the last of them has let go.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._holders: Counter[int] = Counter()  # runs that hold a piece of memory, by its address
        self.bytes = 0

    def add(self, rows: Iterable[Rows]) -> None:
        for address, size in _memory(rows):
            self._holders[address] += 1
            if self._holders[address] == 1:
                self.bytes += size

    def remove(self, rows: Iterable[Rows]) -> None:
        for address, size in _memory(rows):
            self._holders[address] -= 1
            if not self._holders[address]:
                del self._holders[address]
                self.bytes -= size

    def let_go(self, streams: Iterable[StreamState]) -> None:
        """Keep within the limit: the oldest fed spans go first, of the stream that keeps most entries.

        A stream that has let spans go can be moved to host memory whole, but no longer be fed anew, and its running
        reply can be cut only after them.
        """
        while self.bytes > self._limit:
            stream = max(streams, key=lambda stream: stream.head - stream.kept_from, default=None)
            if stream is None or stream.kept_from >= stream.head:
                return
            self.remove(stream.let_go())


def _memory(rows: Iterable[Rows]) -> Iterator[tuple[int, int]]:
    """Address and bytes of what each run's embeddings lie in."""
    for run in rows:
        if run.embeds is not None:
            storage = run.embeds.untyped_storage()
            yield storage.data_ptr(), storage.nbytes()
