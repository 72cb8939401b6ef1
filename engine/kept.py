"""How many bytes of spans are kept so that streams can be fed anew.

Counts; knows streams only by what they have laid.
"""

from __future__ import annotations

from collections.abc import Iterable

from .span import Rows
from .stream import StreamState


def span_bytes(run: Rows) -> int:
    """Bytes of the embeddings of a run."""
    return 0 if run.embeds is None else run.embeds.numel() * run.embeds.element_size()


class Kept:
    """The count over all streams, and what goes when it is more than `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.bytes = 0

    def add(self, rows: Iterable[Rows]) -> None:
        self.bytes += sum(span_bytes(run) for run in rows)

    def remove(self, rows: Iterable[Rows]) -> None:
        self.bytes -= sum(span_bytes(run) for run in rows)

    def let_go(self, streams: Iterable[StreamState]) -> None:
        """Keep within the limit: the oldest fed spans go first, of the stream that keeps most entries.

        A stream that has let spans go can be moved to host memory whole, but no longer be fed anew, and its running reply
        can be cut only behind them.
        """
        while self.bytes > self._limit:
            stream = max(streams, key=lambda stream: stream.head - stream.kept_from, default=None)
            if stream is None or stream.kept_from >= stream.head:
                return
            self.remove(stream.let_go())
