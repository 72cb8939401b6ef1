"""What streams find in the cache when they begin: pages that hold their first rows already.

A stream that has computed nothing yet may go on with such pages instead. At least its last row is computed, since a
token may be drawn from it. Counts rows; feeds none and chooses no stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from ..conversation.state import StreamState
from ..pages import PagePool
from ..plan import TableEdit
from ..span import Stored


class Finding:
    """Who may go on with which pages of `pool`. Where it is not `on`, nobody finds anything."""

    def __init__(self, pool: PagePool, on: bool) -> None:
        self._pool = pool
        self._on = on
        self._ahead: dict[int, list[int]] = {}  # idle pages, by stream
        self._taken: list[Stored] = []
        self._queries = self._hits = 0

    def look(self, streams: Iterable[StreamState]) -> list[TableEdit]:
        """Before a step is chosen among these. Pages that others hold are joined at once, since that takes none;
        `ahead` says with how many idle ones a stream goes on if it is chosen, a page for its other rows left."""
        self._ahead, edits = {}, []
        for stream in streams if self._on else ():
            if stream.away or stream.table.length != stream.found:
                continue
            if stream.rows <= stream.fed + self._pool.page_tokens:
                continue
            pages = self._pages(stream)
            held = list(takewhile(self._pool.holders, pages))
            if held:
                edits.append(self._join(stream, held))
            idle = list(takewhile(lambda page: not self._pool.holders(page), pages[len(held) :]))
            if idle:
                self._ahead[stream.id] = idle[: max(0, self._pool.free - 1)]
        return edits

    def ahead(self, stream: StreamState) -> int:
        """How many idle pages it goes on with if it is chosen now."""
        return len(self._ahead[stream.id]) if stream.id in self._ahead else 0

    def chosen(self, stream: StreamState) -> list[TableEdit]:
        """Rows of this stream go into the step that is planned now, before any page is taken for it."""
        pages = self._ahead.pop(stream.id, [])
        edits = [self._join(stream, pages)] if pages else []
        if self._on and stream.fed == stream.found and not stream.away:
            self._queries += stream.rows
            self._hits += stream.found
        return edits

    def taken(self) -> list[Stored]:
        """Entries of the span store whose rows were found since the last call."""
        taken, self._taken = self._taken, []
        return taken

    def fed(self, stream: StreamState) -> None:
        """Rows of this stream are in the cache now: full pages of it can be found."""
        table = stream.table
        if self._on and not table.begin and table.named < table.full:  # else they hang on rows that have left
            table.name(stream.keys.up_to(table.full, stream.laid, stream.starts))

    def spoiled(self, streams: Iterable[StreamState]) -> None:
        """The rows of these are no numbers: nobody goes on with them."""
        for stream in streams:
            for table in stream.tables:
                for page in table.pages:
                    self._pool.forget(page)

    def statistics(self) -> dict[str, int]:
        """`prefix_queries`: rows with which streams began, `prefix_hits` those of them that were found;
        `prefix_pages`: pages that can be found, `prefix_pages_idle` those that no stream holds."""
        found = self._pool.prefixes
        return {
            "prefix_queries": self._queries,
            "prefix_hits": self._hits,
            "prefix_pages": len(found),
            "prefix_pages_idle": found.idle,
        }

    def _pages(self, stream: StreamState) -> list[int]:
        """Pages that hold the rows after those that it has, but for the last row."""
        size, found = self._pool.page_tokens, []
        for place in range(stream.fed // size, (stream.rows - 1) // size):
            keys = stream.keys.up_to(place + 1, stream.laid, stream.starts)
            page = self._pool.prefixes.find(keys[place]) if place < len(keys) else None
            if page is None:
                break
            found.append(page)
        return found

    def _join(self, stream: StreamState, pages: list[int]) -> TableEdit:
        head = stream.head
        edit = stream.join(pages)
        self._taken += [run.stored for run in stream.laid[head : stream.head] if run.stored is not None]
        return TableEdit(stream.slot, edit.index, edit.pages)
