"""Who holds which page of the KV cache. Ids only: no tensors, no torch, no streams.

A `PagePool` counts the holders of each page. A `PageTable` is one sequence's list of pages. What has to happen to the
tensors comes back as plain data, an `Edit`, to be carried out before the next forward pass.

The law: `free + held == total`, where the held set is found by walking every live table (`PagePool.check`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np

from ..errors import PenstockError


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
    """`pages` pages of `page_tokens` rows each.

    A sequence gets pages that follow one another as far as it can be had: attention on a CPU reads such pages where
    they lie, without a copy. So a sequence that begins stands in the middle of the largest hole, and the one before
    the hole can grow too.
    """

    def __init__(self, pages: int, page_tokens: int) -> None:
        self.pages = pages
        self.page_tokens = page_tokens
        self.free = pages
        self._holders = np.zeros(pages, dtype=np.int64)

    @property
    def held(self) -> int:
        return self.pages - self.free

    def take(self, count: int, after: int | None = None) -> list[int]:
        """`count` pages, each with one holder, if possible those that follow page `after`. Raises OutOfPages and takes
        none where fewer are free."""
        if count > self.free:
            raise OutOfPages(f"expected {count} free pages, got {self.free} of {self.pages}")
        taken: list[int] = []
        page = self.pages if after is None else after + 1
        while len(taken) < count:
            if page >= self.pages or self._holders[page]:
                page = self._hole()
            self._holders[page] = 1
            taken.append(page)
            page += 1
        self.free -= count
        return taken

    def _hole(self) -> int:
        """Where a sequence best begins: in the largest hole, in its middle where a held page stands before it."""
        held = np.flatnonzero(self._holders)
        starts = np.concatenate([[0], held + 1])
        sizes = np.append(held, self.pages) - starts
        largest = int(sizes.argmax())
        return int(starts[largest]) + (int(sizes[largest]) // 2 if largest else 0)

    def share(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._holders[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._holders[page] -= 1
            self.free += not self._holders[page]

    def holders(self, page: int) -> int:
        return int(self._holders[page])

    def shared(self, page: int) -> bool:
        return bool(self._holders[page] > 1)

    def check(self, tables: Iterable[PageTable]) -> None:
        """Walk the live tables and compare with the counts. Raises PenstockError that shows the first difference."""
        walked = Counter(page for table in tables for page in table.pages)
        for page in range(self.pages):
            if walked[page] != self._holders[page]:
                raise PenstockError(f"page {page}: expected {walked[page]} holders by walk, got {self._holders[page]}")
        if len(walked) + self.free != self.pages:
            raise PenstockError(f"free({self.free}) + held({len(walked)}) != total({self.pages})")


class PageTable:
    """One sequence's pages in one pool; rows `[0, length)` of it are in use."""

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.pages: list[int] = []
        self.length = 0
        self.forked = False  # some of the pages may be shared

    @property
    def own(self) -> int:
        """How many pages would become free if this table let go of all."""
        if not self.forked:
            return len(self.pages)
        return sum(not self.pool.shared(page) for page in self.pages)

    @property
    def shared(self) -> tuple[tuple[int, int], ...]:
        """The pages that others hold as well, (page, holders)."""
        if not self.forked:
            return ()
        return tuple((page, self.pool.holders(page)) for page in self.pages if self.pool.shared(page))

    def need(self, rows: int) -> int:
        """How many free pages `append(rows)` would take, a private copy of a shared last page included."""
        if rows == 0:
            return 0
        size = self.pool.page_tokens
        copies = int(self.length % size != 0 and self.pool.shared(self.pages[-1]))
        return max(0, -(-(self.length + rows) // size) - len(self.pages)) + copies

    def append(self, rows: int) -> Edit:
        """Make room for `rows` more rows; a shared page that would be written is copied first. Atomic on OutOfPages."""
        if rows == 0:
            return Edit(len(self.pages))
        fresh = self.pool.take(self.need(rows), self.pages[-1] if self.pages else None)
        index, copies = len(self.pages), []
        if self.length % self.pool.page_tokens and self.pool.shared(self.pages[-1]):
            old, index = self.pages.pop(), index - 1
            copies.append((old, fresh[0]))
            self.pool.release([old])
        self.pages += fresh
        self.length += rows
        return Edit(index, fresh, copies)

    def truncate(self, length: int) -> Edit:
        """Keep rows `[0, length)`; pages after them go back to the pool."""
        if not 0 <= length <= self.length:
            raise PenstockError(f"truncate: expected a length in [0, {self.length}], got {length}")
        keep = -(-length // self.pool.page_tokens)
        self.pool.release(self.pages[keep:])
        del self.pages[keep:]
        self.length = length
        return Edit(keep)

    def fork(self) -> PageTable:
        """The same rows once more: every page shared; whoever writes into the partial last page first copies it."""
        twin = PageTable(self.pool)
        twin.pages, twin.length = list(self.pages), self.length
        twin.forked = self.forked = True
        self.pool.share(twin.pages)
        return twin

    def row(self, place: int) -> int:
        """The pool row that holds row `place` of this sequence."""
        size = self.pool.page_tokens
        return self.pages[place // size] * size + place % size

    def clear(self) -> None:
        """Give every page back."""
        self.pool.release(self.pages)
        self.pages, self.length = [], 0
