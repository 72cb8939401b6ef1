"""Pages against a plain model: each sequence is a list of what was written into its rows, and the pool a flat memory.

What an operation reports (copies, moves, pages of a table) is carried out on the memory as the owner of the tensors
would; then every row must read back what the model says, whatever is shared.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from penstock.engine.pages import Edit, OutOfPages, PagePool, PageTable, Sequence
from penstock.errors import PenstockError

MOST_SEQUENCES = 5
NAMES = ("full", "sliding")


class Sliding:
    """A cache group that keeps only the pages that hold the last `window` rows: a page table without its front."""

    def __init__(self, pool: PagePool, window: int) -> None:
        self.pool = pool
        self.window = window
        self.kept = PageTable(pool)
        self.gone = 0  # rows in front of those that are kept

    @property
    def pages(self) -> list[int]:
        return self.kept.pages

    @property
    def length(self) -> int:
        return self.gone + self.kept.length

    def need(self, rows: int) -> int:
        return self.kept.need(rows)

    def evict_need(self, start: int, stop: int) -> int:
        return self.kept.evict_need(*self._inside(start, stop))

    def append(self, rows: int) -> Edit:
        edit = self.kept.append(rows)
        size = self.pool.page_tokens
        passed = max(0, self.kept.length - self.window) // size
        self.pool.release(self.pages[:passed])
        del self.pages[:passed]
        self.kept.length -= passed * size
        self.gone += passed * size
        return edit

    def truncate(self, length: int) -> Edit:
        edit = self.kept.truncate(max(0, length - self.gone))
        self.gone = min(self.gone, length)
        return edit

    def evict(self, start: int, stop: int) -> Edit:
        edit = self.kept.evict(*self._inside(start, stop))
        self.gone -= min(stop, self.gone) - min(start, self.gone)
        return edit

    def fork(self) -> Sliding:
        twin = Sliding(self.pool, self.window)
        twin.kept, twin.gone = self.kept.fork(), self.gone
        return twin

    def row(self, place: int) -> int:
        return self.kept.row(place - self.gone)

    def clear(self) -> None:
        self.kept.clear()
        self.gone = 0

    def _inside(self, start: int, stop: int) -> tuple[int, int]:
        return max(0, start - self.gone), max(0, stop - self.gone)


class Tables(RuleBasedStateMachine):
    """Sequences with a full and a sliding group each, over one pool per group."""

    @initialize(size=st.sampled_from([1, 3, 4]), pages=st.integers(1, 14), window=st.integers(1, 9))
    def begin(self, size: int, pages: int, window: int) -> None:
        self.window = window
        self.pools = {name: PagePool(pages, size) for name in NAMES}
        self.memory: dict[str, list[int]] = {name: [-1] * (pages * size) for name in NAMES}
        self.sequences: list[Sequence] = []
        self.contents: list[list[int]] = []
        self.mirrors: list[list[int]] = []  # the full group's page lists as edits tell them; stale behind the end
        self.fresh = itertools.count()
        self.open()

    def open(self) -> None:
        tables: dict[str, Any] = {"full": PageTable(self.pools["full"])}
        tables["sliding"] = Sliding(self.pools["sliding"], self.window)
        self.sequences.append(Sequence(tables))
        self.contents.append([])
        self.mirrors.append([])

    def carry_out(self, which: int, edits: dict[str, Edit]) -> None:
        for name, edit in edits.items():
            memory, size = self.memory[name], self.pools[name].page_tokens
            for source, target in edit.copies:
                memory[target * size : (target + 1) * size] = memory[source * size : (source + 1) * size]
            for source, target in edit.moves:
                memory[target] = memory[source]
        edit = edits["full"]
        self.mirrors[which][edit.index : edit.index + len(edit.pages)] = edit.pages

    def state(self) -> Any:
        tables = [table for sequence in self.sequences for table in sequence.tables.values()]
        return [(list(table.pages), table.length) for table in tables], [pool.free for pool in self.pools.values()]

    def fails(self, change: Any, *arguments: int) -> None:
        before = self.state()
        with pytest.raises(OutOfPages):
            change(*arguments)
        assert self.state() == before

    @rule(which=st.integers(0, MOST_SEQUENCES), rows=st.integers(0, 13))
    def append(self, which: int, rows: int) -> None:
        which %= len(self.sequences)
        sequence, first = self.sequences[which], self.sequences[which].length
        if not sequence.fits(rows):
            return self.fails(sequence.append, rows)
        full = self.pools["full"]
        need, free = sequence.tables["full"].need(rows), full.free
        edits = sequence.append(rows)
        assert free - full.free == need
        self.carry_out(which, edits)
        for place in range(first, first + rows):
            content = next(self.fresh)
            self.contents[which].append(content)
            for name, table in sequence.tables.items():
                # A row that the window has passed within this very append is not written.
                if place >= getattr(table, "gone", 0):
                    self.memory[name][table.row(place)] = content

    @rule(which=st.integers(0, MOST_SEQUENCES), length=st.integers(0, 60))
    def truncate(self, which: int, length: int) -> None:
        which %= len(self.sequences)
        length %= self.sequences[which].length + 1
        self.carry_out(which, self.sequences[which].truncate(length))
        del self.contents[which][length:]

    @rule(which=st.integers(0, MOST_SEQUENCES), start=st.integers(0, 60), count=st.integers(0, 60))
    def evict(self, which: int, start: int, count: int) -> None:
        which %= len(self.sequences)
        sequence = self.sequences[which]
        start %= sequence.length + 1
        stop = start + count % (sequence.length - start + 1)
        tables = sequence.tables.values()
        if any(table.evict_need(start, stop) > table.pool.free for table in tables):
            return self.fails(sequence.evict, start, stop)
        self.carry_out(which, sequence.evict(start, stop))
        del self.contents[which][start:stop]

    @rule(which=st.integers(0, MOST_SEQUENCES))
    def fork(self, which: int) -> None:
        if len(self.sequences) == MOST_SEQUENCES:
            return
        which %= len(self.sequences)
        self.sequences.append(self.sequences[which].fork())
        self.contents.append(list(self.contents[which]))
        self.mirrors.append(list(self.mirrors[which]))

    @rule(which=st.integers(0, MOST_SEQUENCES))
    def clear(self, which: int) -> None:
        which %= len(self.sequences)
        sequence, full = self.sequences[which], self.pools["full"]
        own, free = sequence.tables["full"].own, full.free
        sequence.clear()
        assert full.free == free + own
        if len(self.sequences) == 1:
            self.open()
        del self.sequences[which], self.contents[which], self.mirrors[which]

    @invariant()
    def pages_conserve(self) -> None:
        for name in NAMES:
            pool = self.pools[name]
            tables: list[Any] = [sequence.tables[name] for sequence in self.sequences]
            pool.check(tables)
            reached = {page for table in tables for page in table.pages}
            assert pool.free + len(reached) == pool.free + pool.held == pool.pages

    @invariant()
    def rows_read_back(self) -> None:
        for sequence, content, mirror in zip(self.sequences, self.contents, self.mirrors, strict=True):
            full: Any = sequence.tables["full"]
            sliding: Any = sequence.tables["sliding"]
            assert full.length == sliding.length == sequence.length == len(content)
            assert [self.memory["full"][full.row(place)] for place in range(full.length)] == content
            kept = range(sliding.gone, sliding.length)
            assert [self.memory["sliding"][sliding.row(place)] for place in kept] == content[sliding.gone :]
            assert mirror[: len(full.pages)] == full.pages
            assert len(full.pages) == -(-full.length // full.pool.page_tokens)

    def teardown(self) -> None:
        for sequence in getattr(self, "sequences", []):
            sequence.clear()
        for pool in getattr(self, "pools", {}).values():
            assert pool.free == pool.pages


TestTables = Tables.TestCase


def test_a_window_holds_its_last_rows_and_no_more_pages_than_that() -> None:
    pool = PagePool(40, 4)
    sliding: Any = Sliding(pool, 10)
    sequence = Sequence({"full": PageTable(PagePool(40, 4)), "sliding": sliding})
    for rows in (3, 1, 9, 1, 1, 30, 2):
        sequence.append(rows)
        assert sliding.length - sliding.gone >= min(10, sequence.length)
        assert len(sliding.pages) <= 4


def test_no_group_changes_where_one_is_out_of_pages() -> None:
    wide, narrow = PagePool(8, 4), PagePool(1, 4)
    sequence = Sequence({"full": PageTable(wide), "narrow": PageTable(narrow)})
    sequence.append(4)
    with pytest.raises(OutOfPages, match="narrow"):
        sequence.append(1)
    assert (wide.free, narrow.free, sequence.length) == (7, 0, 4)
    twin = sequence.fork()
    with pytest.raises(OutOfPages, match="narrow"):
        twin.evict(0, 1)
    assert (wide.free, narrow.free, twin.length) == (7, 0, 4)
    assert {table.length for table in twin.tables.values()} == {4}


def test_a_shared_page_is_copied_once_and_only_by_who_writes() -> None:
    pool = PagePool(8, 4)
    table = PageTable(pool)
    table.append(6)
    twin = table.fork()
    edit = twin.append(1)
    assert edit.copies == [(table.pages[1], twin.pages[1])]
    assert twin.pages[0] == table.pages[0]
    assert table.append(1).copies == []  # nobody else holds its last page any more
    assert pool.free == 8 - 3


@pytest.mark.parametrize("spoil", ["lost", "counted twice", "held and free"])
def test_the_walk_finds_what_is_wrong(spoil: str) -> None:
    pool = PagePool(4, 4)
    table = PageTable(pool)
    table.append(9)
    pool.check([table])
    if spoil == "lost":
        table.pages.pop()
    elif spoil == "counted twice":
        pool.share(table.pages[:1])
    else:
        pool.release(table.pages[:1])
    with pytest.raises(PenstockError):
        pool.check([table])


def test_errors_name_both_numbers() -> None:
    pool = PagePool(2, 4)
    table = PageTable(pool)
    table.append(5)
    with pytest.raises(OutOfPages, match="expected 3 free pages, got 0 of 2"):
        pool.take(3)
    with pytest.raises(PenstockError, match=r"in \[0, 5\], got 6"):
        table.truncate(6)
    with pytest.raises(PenstockError, match=r"inside \[0, 5\], got \[2, 6\)"):
        table.evict(2, 6)
