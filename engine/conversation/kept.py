"""Which entries of the span store the streams name, and how many bytes of them are kept to feed streams again.

Counts; knows streams only by what they have laid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ...errors import PenstockError
from ..span import Prompt, Rows, Span, Stored
from .state import StreamState
from .waiting import Waiting


class Kept:
    """The count over all streams, and what goes when it is more than `limit_bytes`.

    An entry that several runs name, as those of forks do, counts once and until the last of them has let go. What waits
    to be laid is named too, but does not count against the limit.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._laid: Counter[int] = Counter()  # runs that name an entry
        self._waiting: Counter[int] = Counter()  # spans and runs that wait to be laid and name it
        self._handed: Counter[int] = Counter()  # how often it came from the encoder
        self._gone: set[int] = set()  # entries that nobody may name any more
        self.bytes = 0

    def come(self, content: list[Span] | Prompt) -> None:
        """Spans or a prompt came from the encoder. What nobody names by the next `released` is let go there."""
        for stored in _named(content.rows if isinstance(content, Prompt) else content):
            self._handed[stored.id] += 1
            self._gone.add(stored.id)

    def handed(self, ids: Iterable[int]) -> None:
        """These entries came with a stream that goes on here."""
        for id in ids:
            self._handed[id] += 1
            self._gone.add(id)

    def waits(self, waiting: Iterable[Waiting]) -> None:
        """These inputs wait, with all that has come of them."""
        for input in waiting:
            self.wait(input.spans)
            self.wait([] if input.prompt is None else input.prompt.rows)

    def acted(self, waiting: Iterable[Waiting]) -> None:
        """These inputs wait no longer."""
        for input in waiting:
            self.done(input.spans)
            self.done([] if input.prompt is None else input.prompt.rows)

    def wait(self, content: Iterable[Span | Rows]) -> None:
        for stored in _named(content):
            self._waiting[stored.id] += 1

    def done(self, content: Iterable[Span | Rows]) -> None:
        for stored in _named(content):
            self._less(self._waiting, stored)

    def add(self, rows: Iterable[Rows]) -> None:
        """These runs are laid."""
        for stored in _named(rows):
            self._laid[stored.id] += 1
            if self._laid[stored.id] == 1:
                self.bytes += stored.nbytes

    def remove(self, rows: Iterable[Rows]) -> None:
        """These runs are laid no longer, or have let their embeddings go."""
        for stored in _named(rows):
            if self._less(self._laid, stored):
                self.bytes -= stored.nbytes

    def let_go(self, streams: Iterable[StreamState]) -> None:
        """Keep within the limit: the oldest fed spans go first, of the stream that keeps most entries.

        A stream that has let spans go can be moved to host memory whole, but no longer be fed again, and its running
        reply can be cut only after them.
        """
        while self.bytes > self._limit:
            stream = max(streams, key=lambda stream: stream.spare - stream.kept_from, default=None)
            if stream is None or stream.kept_from >= stream.spare:
                return
            self.remove(stream.let_go())

    def released(self) -> list[tuple[int, int]]:
        """Entries that nobody names any more since the last call, with how often each was handed out."""
        if not self._gone:
            return []
        gone = sorted(id for id in self._gone if not self._laid[id] and not self._waiting[id])
        self._gone.clear()
        return [(id, self._handed.pop(id)) for id in gone]

    def named(self) -> set[int]:
        """All entries that somebody names."""
        return {*self._laid, *self._waiting}

    def check(self, streams: Iterable[StreamState]) -> None:
        """Raise PenstockError where the counts are not those of a walk over the streams."""
        laid: Counter[int] = Counter()
        waiting: Counter[int] = Counter()
        for stream in streams:
            laid.update(stored.id for stored in _named(stream.laid))
            for input in stream.inputs:
                waiting.update(stored.id for stored in _named(input.spans))
                waiting.update(stored.id for stored in _named([] if input.prompt is None else input.prompt.rows))
        if (laid, waiting) != (self._laid, self._waiting):
            raise PenstockError(
                f"span store: expected {dict(laid)} laid and {dict(waiting)} waiting by walk, "
                f"got {dict(self._laid)} and {dict(self._waiting)}"
            )

    def _less(self, counter: Counter[int], stored: Stored) -> bool:
        """One name fewer; True where it was the last of its kind."""
        counter[stored.id] -= 1
        if counter[stored.id]:
            return False
        del counter[stored.id]
        self._gone.add(stored.id)
        return True


def _named(content: Iterable[Span | Rows]) -> list[Stored]:
    """What each names of the store; the model's own entries are left out."""
    return [one.stored for one in content if one.stored is not None and one.stored.id >= 0]
