"""Pages against a plain list: whatever is done to page tables, each reads back what it holds, and pages conserve.

What an operation says has to happen to the tensors is carried out on a dictionary of rows.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from penstock.engine.pages import Edit, OutOfPages, PagePool, PageTable
from penstock.errors import PenstockError

SIZE, PAGES = 4, 12


class Mirror:
    """A table, the rows it should hold, and its list of pages as the runner would know it."""

    def __init__(self, table: PageTable, rows: list[int], pages: list[int]) -> None:
        self.table, self.rows, self.pages = table, rows, pages


class Pages(RuleBasedStateMachine):
    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(PAGES, SIZE)
        self.contents: dict[int, int] = {}
        self.live: list[Mirror] = []
        self.said: list[list[int]] = []  # what sequences have held whose pages could be found
        self.count = 0

    @rule(target=tables)
    def open(self) -> Mirror:
        mirror = Mirror(PageTable(self.pool), [], [])
        self.live.append(mirror)
        return mirror

    @rule(mirror=tables, rows=st.integers(0, 9))
    def append(self, mirror: Mirror, rows: int) -> None:
        need, free = mirror.table.need(rows), self.pool.free
        before = (list(mirror.table.pages), mirror.table.length)
        try:
            edit = mirror.table.append(rows)
        except OutOfPages:
            assert need > free
            assert (mirror.table.pages, mirror.table.length, self.pool.free) == (*before, free)
            return
        assert need <= free and self.pool.free == free - need
        self._carry_out(mirror, edit)
        self._write(mirror, list(range(self.count, self.count + rows)))
        self.count += rows

    @rule(mirror=tables)
    def name(self, mirror: Mirror) -> None:
        """Its full pages can be found from now on."""
        mirror.table.name(keys(mirror.rows))
        self.said.append(list(mirror.rows))
        for key in keys(mirror.rows):
            assert self.pool.prefixes.find(key) is not None

    @precondition(lambda self: self.said)
    @rule(target=tables, data=st.data())
    def begin_alike(self, data: st.DataObject) -> Mirror:
        """A sequence that begins as one did that may be gone, goes on with what it finds, and writes the rest."""
        said = data.draw(st.sampled_from(self.said))
        rows = said[: data.draw(st.integers(0, len(said)))]
        mirror = Mirror(PageTable(self.pool), [], [])
        self.live.append(mirror)
        found = [self.pool.prefixes.find(key) for key in keys(rows)]
        pages = [page for page in itertools.takewhile(lambda page: page is not None, found) if page is not None]
        idle = sum(not self.pool.holders(page) for page in pages)
        free = self.pool.free
        self._carry_out(mirror, mirror.table.join(pages))
        assert self.pool.free == free - idle
        mirror.rows = rows[: len(pages) * SIZE]  # `rows_read_back` looks whether the pages hold them
        rest = rows[len(mirror.rows) :]
        if mirror.table.need(len(rest)) <= self.pool.free:
            self._carry_out(mirror, mirror.table.append(len(rest)))
            self._write(mirror, rest)
            mirror.table.name(keys(mirror.rows))
        return mirror

    @rule(mirror=tables, part=st.floats(0, 1))
    def truncate(self, mirror: Mirror, part: float) -> None:
        keep = round(part * len(mirror.rows))
        mirror.pages = mirror.pages[: mirror.table.truncate(keep).index]
        mirror.rows = mirror.rows[:keep]

    @rule(target=tables, mirror=tables)
    def fork(self, mirror: Mirror) -> Mirror:
        twin = Mirror(mirror.table.fork(), list(mirror.rows), list(mirror.pages))
        self.live.append(twin)
        return twin

    @rule(mirror=consumes(tables))
    def close(self, mirror: Mirror) -> None:
        mirror.table.clear()
        self.live.remove(mirror)

    @invariant()
    def rows_read_back(self) -> None:
        for mirror in self.live:
            assert mirror.table.length == len(mirror.rows)
            assert mirror.table.pages == mirror.pages
            assert [self.contents[mirror.table.row(place)] for place in range(len(mirror.rows))] == mirror.rows

    @invariant()
    def pages_conserve(self) -> None:
        self.pool.check(mirror.table for mirror in self.live)
        assert self.pool.free + self.pool.held == PAGES
        for mirror in self.live:
            table = mirror.table
            assert table.own == sum(not self.pool.shared(page) for page in table.pages)
            holders = {page: self.pool.holders(page) for page in table.pages if self.pool.shared(page)}
            assert dict(table.shared) == holders

    def teardown(self) -> None:
        for mirror in self.live:
            mirror.table.clear()
        assert self.pool.free == PAGES

    def _write(self, mirror: Mirror, labels: list[int]) -> None:
        for label in labels:
            place = len(mirror.rows)
            self.contents[mirror.pages[place // SIZE] * SIZE + place % SIZE] = label
            mirror.rows.append(label)

    def _carry_out(self, mirror: Mirror, edit: Edit) -> None:
        for source, target in edit.copies:
            for offset in range(SIZE):
                self.contents[target * SIZE + offset] = self.contents.get(source * SIZE + offset, -1)
        mirror.pages[edit.index : edit.index + len(edit.pages)] = edit.pages


TestPages = Pages.TestCase


def keys(rows: list[int]) -> list[bytes]:
    """A key for each full page: all rows up to its end."""
    return [repr(rows[:end]).encode() for end in range(SIZE, len(rows) + 1, SIZE)]


def test_what_was_used_least_recently_goes_first_and_of_a_sequence_its_end() -> None:
    pool = PagePool(6, 4)
    older, newer = PageTable(pool), PageTable(pool)
    for number, table in enumerate((older, newer)):
        table.append(12)
        table.name([bytes([number, place]) for place in range(3)])
    newer.clear()
    older.clear()
    assert (pool.free, pool.prefixes.idle) == (6, 6)
    other = PageTable(pool)
    other.append(4 * 4)
    assert [pool.prefixes.find(bytes([1, place])) for place in range(3)] == [None] * 3, "it was closed first"
    assert [pool.prefixes.find(bytes([0, place])) is None for place in range(3)] == [False, False, True]
    with pytest.raises(OutOfPages, match="expected 3 free pages, got 2 of 6"):
        other.append(3 * 4)
    pool.check([other])


def test_pages_that_can_be_found_are_taken_after_those_that_cannot() -> None:
    pool = PagePool(8, 4)
    table = PageTable(pool)
    table.append(8)
    table.name([b"a", b"b"])
    kept = list(table.pages)
    table.clear()
    other = PageTable(pool)
    other.append(6 * 4)
    assert not set(kept) & set(other.pages)
    assert [pool.prefixes.find(key) for key in (b"a", b"b")] == kept
    other.append(1)
    assert pool.prefixes.find(b"b") is None


def test_a_page_that_is_written_again_is_found_no_more() -> None:
    """Its holder has cut it in part."""
    pool = PagePool(4, 4)
    table = PageTable(pool)
    table.append(8)
    table.name([b"a", b"b"])
    table.truncate(6)
    assert pool.prefixes.find(b"b") == table.pages[1]
    table.append(2)
    assert pool.prefixes.find(b"b") is None
    table.name([b"a", b"c"])
    assert pool.prefixes.find(b"c") == table.pages[1]
    pool.check([table])


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


def test_the_walk_names_a_page_that_nobody_holds() -> None:
    pool = PagePool(4, 4)
    PageTable(pool).append(6)
    with pytest.raises(PenstockError, match="page 0: expected 0 holders by walk, got 1"):
        pool.check([])


def test_refused_lengths_say_both_numbers() -> None:
    table = PageTable(PagePool(4, 4))
    table.append(6)
    with pytest.raises(PenstockError, match=r"\[0, 6\], got 7"):
        table.truncate(7)
    with pytest.raises(OutOfPages, match="expected 3 free pages, got 2 of 4"):
        table.append(12)
    assert table.length == 6


@given(streams=st.integers(1, 6), grains=st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_sequences_that_grow_in_turn_keep_their_pages_together(streams: int, grains: list[int]) -> None:
    """Each in a few stretches: attention on a CPU reads these without a copy."""
    pool = PagePool(1 << 14, 8)
    tables = [PageTable(pool) for _ in range(streams)]
    for rows in grains:
        for table in tables:
            table.append(rows)
    for table in tables:
        assert sum(after != before + 1 for before, after in itertools.pairwise(table.pages)) == 0
    pool.check(tables)
