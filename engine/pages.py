"""Who holds which page of the KV cache. Ids only: no tensors, no torch, no streams.

A `PagePool` counts the holders of each page. A `PageTable` is one sequence's list of pages. What has to happen to the
tensors comes back as plain data, an `Edit`, to be carried out before the next forward pass.

A page that nobody holds is free. Of the free pages some are *idle*: they can still be found by what they hold
(prefix.py), and are taken last.

The law: `free + held == total`, where the held set is found by walking every live table (`PagePool.check`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from ..errors import PenstockError
from .prefix import PrefixCache

# What part of all pages becomes empty at once where none is: pages that become empty together follow one another.
_EMPTIED = 16


class OutOfPages(PenstockError):
    """The pool has fewer free pages than were asked for."""

    code = "out_of_pages"


class Edit(msgspec.Struct, frozen=True):
    """What an operation did to one table, to be mirrored where the tensors are.

    `pages` are now at indices `[index, index + len(pages))`. `copies` are (source page, target page) pairs, copied
    whole.
    """

    index: int = 0
    pages: list[int] = []
    copies: list[tuple[int, int]] = []


class PagePool:
    """`pages` pages of `page_tokens` rows each. `prefixes`: which of them can be found by what they hold.

    A sequence gets pages that follow one another as far as it can be had: attention on a CPU reads such pages where
    they lie, without a copy. So a sequence that begins stands in the middle of the largest hole, and the one before
    the hole can grow too.
    """

    def __init__(self, pages: int, page_tokens: int) -> None:
        self.pages = pages
        self.page_tokens = page_tokens
        self.free = pages
        self.prefixes = PrefixCache()
        self._holders = np.zeros(pages, dtype=np.int64)
        self._empty = np.ones(pages, dtype=bool)  # free, and not idle
        self._shared: set[int] = set()  # with more than one holder

    @property
    def held(self) -> int:
        return self.pages - self.free

    def take(self, count: int, after: int | None = None) -> list[int]:
        """`count` pages, each with one holder, if possible those that follow page `after`. Where too few are empty,
        idle ones go, the least recently used first. Raises OutOfPages and takes none where fewer are free."""
        if count > self.free:
            raise OutOfPages(f"expected {count} free pages, got {self.free} of {self.pages}")
        short = count - (self.free - self.prefixes.idle)
        if short > 0:
            self._empty[self.prefixes.evict(max(short, self.pages // _EMPTIED))] = True
        taken: list[int] = []
        page = self.pages if after is None else after + 1
        while len(taken) < count:
            if page >= self.pages or not self._empty[page]:
                page = self._hole()
            self._holders[page] = 1
            self._empty[page] = False
            taken.append(page)
            page += 1
        self.free -= count
        return taken

    def _hole(self) -> int:
        """Where a sequence best begins: in the largest hole, in its middle where a held page stands before it."""
        full = np.flatnonzero(~self._empty)
        starts = np.concatenate([[0], full + 1])
        sizes = np.append(full, self.pages) - starts
        largest = int(sizes.argmax())
        start = int(starts[largest])
        return start + (int(sizes[largest]) // 2 if start and self._holders[start - 1] else 0)

    def share(self, pages: Iterable[int]) -> None:
        """Each of these, held or idle, has one holder more."""
        for page in pages:
            if not self._holders[page]:
                self.free -= 1
                self.prefixes.held(page)
            else:
                self._shared.add(page)
            self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Each of these, pages of one sequence in order, has one holder less."""
        for page in reversed(pages):  # what a sequence begins with is of use to most others, and goes last
            self._holders[page] -= 1
            if self._holders[page] == 1:
                self._shared.discard(page)
            elif not self._holders[page]:
                self.free += 1
                self._empty[page] = not self.prefixes.released(page)

    def forget(self, page: int) -> None:
        """It is found no more."""
        if self.prefixes.forget(page):
            self._empty[page] = not self._holders[page]

    def holders(self, page: int) -> int:
        return int(self._holders[page])

    def shared(self, page: int) -> bool:
        return page in self._shared

    def shared_of(self, pages: list[int]) -> tuple[tuple[int, int], ...]:
        """Those of `pages` that have more than one holder, (page, holders)."""
        if self._shared.isdisjoint(pages):
            return ()
        return tuple((page, self.holders(page)) for page in pages if page in self._shared)

    def check(self, tables: Iterable[PageTable]) -> None:
        """Walk the live tables and compare with the counts. Raises PenstockError that shows the first difference, and
        for a table that has other pages than those of its rows."""
        tables = list(tables)
        for table in tables:
            if table.pages and len(table.pages) != table.needed:
                raise PenstockError(f"{table.length} rows: expected {table.needed} pages, got {len(table.pages)}")
        walked = Counter(page for table in tables for page in table.pages)
        for page in range(self.pages):
            if walked[page] != self._holders[page]:
                raise PenstockError(f"page {page}: expected {walked[page]} holders by walk, got {self._holders[page]}")
            if self.shared(page) != (walked[page] > 1):
                raise PenstockError(f"page {page}: {walked[page]} hold it, and shared is {self.shared(page)}")
        if len(walked) + self.free != self.pages:
            raise PenstockError(f"free({self.free}) + held({len(walked)}) != total({self.pages})")
        empty = set(np.flatnonzero(self._empty).tolist())
        self.prefixes.check(set(range(self.pages)) - empty - set(walked))


class PageTable:
    """One sequence's pages in one pool; rows `[begin, length)` of it are in use.

    Rows are numbered from the sequence's first one, also where that is gone: the first page holds the rows from `base`
    on, the start of the page in which row `begin` is.
    """

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.pages: list[int] = []
        self.base = 0
        self.begin = 0
        self.length = 0
        self.named = 0  # so many of its pages, the first ones, can be found or need not be

    @property
    def own(self) -> int:
        """How many pages would become free if this table let go of all."""
        return len(self.pages) - len(self.shared)

    @property
    def shared(self) -> tuple[tuple[int, int], ...]:
        """The pages that others hold as well, (page, holders)."""
        return self.pool.shared_of(self.pages)

    @property
    def needed(self) -> int:
        """How many pages hold its rows."""
        return self._pages(self.length)

    @property
    def full(self) -> int:
        """How many of its pages are full."""
        return self._place(self.length)

    @property
    def copies(self) -> bool:
        """The last page is shared and not full: whoever writes into it copies it first."""
        return self.length % self.pool.page_tokens != 0 and bool(self.pages) and self.pool.shared(self.pages[-1])

    def need(self, rows: int) -> int:
        """How many free pages `append(rows)` would take, a private copy of a shared last page included."""
        if rows == 0:
            return 0
        return max(0, self._pages(self.length + rows) - len(self.pages)) + self.copies

    def append(self, rows: int) -> Edit:
        """Make room for `rows` more rows; a shared page that would be written is copied first, one of its own is found
        no more. Atomic on OutOfPages."""
        need = self.need(rows)
        if rows and self.length % self.pool.page_tokens and not self.copies:
            self.pool.forget(self.pages[-1])
        if not need:
            self.length += rows
            return Edit(len(self.pages))
        fresh = self.pool.take(need, self.pages[-1] if self.pages else None)
        index, copies = len(self.pages), []
        if self.copies:
            old, index = self.pages.pop(), index - 1
            copies.append((old, fresh[0]))
            self.pool.release([old])
        self.pages += fresh
        self.length += rows
        return Edit(index, fresh, copies)

    def reserve(self, rows: int) -> Edit:
        """Take pages for `rows` rows behind those in use, until `trim`. The last page is its own. Atomic on
        OutOfPages."""
        index = len(self.pages)
        self.pages += self.pool.take(max(0, self._pages(self.length + rows) - index), self.pages[-1])
        return Edit(index, self.pages[index:])

    def trim(self) -> None:
        """Pages behind the rows in use go back to the pool."""
        self.truncate(self.length)

    def join(self, pages: list[int]) -> Edit:
        """Go on with full pages that others hold, or that are idle; the own ones are full, and none is gone."""
        assert self.length == len(self.pages) * self.pool.page_tokens
        self.pool.share(pages)
        index = len(self.pages)
        self.pages += pages
        self.length += len(pages) * self.pool.page_tokens
        return Edit(index, list(pages))

    def name(self, keys: Sequence[bytes]) -> None:
        """Its full pages can be found by these keys, as far as there are any, from now on."""
        for page, key in zip(self.pages[self.named : self.full], keys[self.named :], strict=False):
            self.pool.prefixes.remember(page, key)
        self.named = self.full

    def truncate(self, length: int) -> Edit:
        """Keep rows `[begin, length)`; pages after them go back to the pool."""
        if not self.begin <= length <= self.length:
            raise PenstockError(f"truncate: expected a length in [{self.begin}, {self.length}], got {length}")
        keep = self._pages(length)
        self.pool.release(self.pages[keep:])
        del self.pages[keep:]
        self.length = length
        self.named = min(self.named, self.full)
        return Edit(keep)

    def slide(self, begin: int) -> Edit:
        """Keep rows `[begin, length)`; whole pages before them go back to the pool. No row moves."""
        if not self.begin <= begin <= self.length:
            raise PenstockError(f"slide: expected a row in [{self.begin}, {self.length}], got {begin}")
        gone = min(self._place(begin), len(self.pages))
        self.pool.release(self.pages[:gone])
        del self.pages[:gone]
        self.base += gone * self.pool.page_tokens
        self.begin, self.named = begin, max(0, self.named - gone)
        return Edit(0, list(self.pages))

    def head(self, rows: int) -> PageTable:
        """Its first `rows` rows once more: their pages shared."""
        twin = PageTable(self.pool)
        twin.pages, twin.length = self.pages[: self._pages(rows)], rows
        self.pool.share(twin.pages)
        return twin

    def vacate(self) -> list[int]:
        """Give every page back, to get as many again with `fill`. Returns them."""
        pages, self.pages, self.named = self.pages, [], 0
        self.pool.release(pages)
        return pages

    def fill(self) -> Edit:
        """Take pages for all its rows, whose pages it gave back. Atomic on OutOfPages."""
        self.pages = self.pool.take(self._pages(self.length))
        return Edit(0, list(self.pages))

    def fork(self) -> PageTable:
        """The same rows once more: every page shared; whoever writes into the partial last page first copies it."""
        twin = PageTable(self.pool)
        twin.pages, twin.base, twin.begin = list(self.pages), self.base, self.begin
        twin.length, twin.named = self.length, self.named
        self.pool.share(twin.pages)
        return twin

    def row(self, place: int) -> int:
        """The pool row that holds row `place` of this sequence."""
        return self.pages[self._place(place)] * self.pool.page_tokens + place % self.pool.page_tokens

    def clear(self) -> None:
        """Give every page back, and begin with row 0."""
        self.vacate()
        self.base = self.begin = self.length = 0

    def _place(self, row: int) -> int:
        """Which of its pages holds this row."""
        return (row - self.base) // self.pool.page_tokens

    def _pages(self, length: int) -> int:
        """How many pages hold the rows from `base` up to this length."""
        return -(-(length - self.base) // self.pool.page_tokens)
