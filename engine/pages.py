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
        self.prefixes.forget(page)
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
        """Walk the live tables and compare with the counts. Raises PenstockError that shows the first difference."""
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
    """One sequence's pages in one pool; rows `[0, length)` of it are in use."""

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.pages: list[int] = []
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
    def full(self) -> int:
        """How many of its pages are full."""
        return self.length // self.pool.page_tokens

    @property
    def copies(self) -> bool:
        """The last page is shared and not full: whoever writes into it copies it first."""
        return self.length % self.pool.page_tokens != 0 and self.pool.shared(self.pages[-1])

    def need(self, rows: int) -> int:
        """How many free pages `append(rows)` would take, a private copy of a shared last page included."""
        if rows == 0:
            return 0
        size = self.pool.page_tokens
        return max(0, -(-(self.length + rows) // size) - len(self.pages)) + self.copies

    def append(self, rows: int) -> Edit:
        """Make room for `rows` more rows; a shared page that would be written is copied first. Atomic on OutOfPages."""
        need = self.need(rows)
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

    def join(self, pages: list[int]) -> Edit:
        """Go on with full pages that others hold, or that are idle; the own ones are full."""
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
        """Keep rows `[0, length)`; pages after them go back to the pool. One that is left in part is found no more."""
        if not 0 <= length <= self.length:
            raise PenstockError(f"truncate: expected a length in [0, {self.length}], got {length}")
        keep = -(-length // self.pool.page_tokens)
        self.pool.release(self.pages[keep:])
        del self.pages[keep:]
        self.length = length
        if self.full < keep:
            self.pool.forget(self.pages[-1])
        self.named = min(self.named, self.full)
        return Edit(keep)

    def fork(self) -> PageTable:
        """The same rows once more: every page shared; whoever writes into the partial last page first copies it."""
        twin = PageTable(self.pool)
        twin.pages, twin.length, twin.named = list(self.pages), self.length, self.named
        self.pool.share(twin.pages)
        return twin

    def row(self, place: int) -> int:
        """The pool row that holds row `place` of this sequence."""
        size = self.pool.page_tokens
        return self.pages[place // size] * size + place % size

    def clear(self) -> None:
        """Give every page back."""
        self.pool.release(self.pages)
        self.pages, self.length, self.named = [], 0, 0
