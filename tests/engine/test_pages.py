"""Pages against a plain list: whatever is done to sequences, each reads back what it holds, and pages conserve.

What an operation says has to happen to the tensors is carried out on a dictionary of rows. Two groups with different
pages go along: one sequence owns several tables, which move together.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from penstock.engine.pages import Edit, OutOfPages, PagePool, PageTable, Sequence
from penstock.errors import PenstockError

SIZES = {"full": 4, "sliding": 3}
PAGES = {"full": 12, "sliding": 15}


class Mirror:
    """A sequence, the rows it should hold, and each group's page list as the runner would know it."""

    def __init__(self, sequence: Sequence, rows: list[int], tables: dict[str, list[int]]) -> None:
        self.sequence, self.rows, self.tables = sequence, rows, tables


class Pages(RuleBasedStateMachine):
    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.pools = {name: PagePool(PAGES[name], size) for name, size in SIZES.items()}
        self.contents: dict[str, dict[int, int]] = {name: {} for name in SIZES}
        self.live: list[Mirror] = []
        self.count = 0

    @rule(target=sequences)
    def open(self) -> Mirror:
        sequence = Sequence({name: PageTable(pool) for name, pool in self.pools.items()})
        mirror = Mirror(sequence, [], {name: [] for name in SIZES})
        self.live.append(mirror)
        return mirror

    @rule(mirror=sequences, rows=st.integers(0, 9))
    def append(self, mirror: Mirror, rows: int) -> None:
        first = mirror.sequence.length
        fits = mirror.sequence.fits(rows)
        try:
            edits = mirror.sequence.append(rows)
        except OutOfPages:
            assert not fits
            return
        assert fits
        self._carry_out(mirror, edits)
        new = range(self.count, self.count + rows)
        self.count += rows
        for place, label in enumerate(new, first):
            self._write(mirror, place, label)
        mirror.rows += new

    @rule(mirror=sequences, part=st.floats(0, 1))
    def truncate(self, mirror: Mirror, part: float) -> None:
        keep = round(part * len(mirror.rows))
        for name, edit in mirror.sequence.truncate(keep).items():
            mirror.tables[name] = mirror.tables[name][: edit.index]
        mirror.rows = mirror.rows[:keep]

    @rule(mirror=sequences, start=st.floats(0, 1), stop=st.floats(0, 1))
    def evict(self, mirror: Mirror, start: float, stop: float) -> None:
        first, last = sorted(round(part * len(mirror.rows)) for part in (start, stop))
        try:
            edits = mirror.sequence.evict(first, last)
        except OutOfPages:
            return
        self._carry_out(mirror, edits)
        del mirror.rows[first:last]
        for name, size in SIZES.items():
            del mirror.tables[name][-(-len(mirror.rows) // size) :]

    @rule(target=sequences, mirror=sequences)
    def fork(self, mirror: Mirror) -> Mirror:
        tables = {name: list(pages) for name, pages in mirror.tables.items()}
        twin = Mirror(mirror.sequence.fork(), list(mirror.rows), tables)
        self.live.append(twin)
        return twin

    @rule(mirror=consumes(sequences))
    def close(self, mirror: Mirror) -> None:
        mirror.sequence.clear()
        self.live.remove(mirror)

    @invariant()
    def rows_read_back(self) -> None:
        for mirror in self.live:
            for name, size in SIZES.items():
                table, pages = mirror.sequence.tables[name], mirror.tables[name]
                assert table.length == len(mirror.rows)
                assert table.pages == pages
                read = [
                    self.contents[name][pages[place // size] * size + place % size] for place in range(table.length)
                ]
                assert read == mirror.rows

    @invariant()
    def pages_conserve(self) -> None:
        for name, pool in self.pools.items():
            pool.check(mirror.sequence.tables[name] for mirror in self.live)
            assert pool.free + pool.held == PAGES[name]
            for mirror in self.live:
                table = mirror.sequence.tables[name]
                assert table.own == sum(not pool.shared(page) for page in table.pages)

    def teardown(self) -> None:
        for mirror in self.live:
            mirror.sequence.clear()
        assert all(pool.free == PAGES[name] for name, pool in self.pools.items())

    def _carry_out(self, mirror: Mirror, edits: dict[str, Edit]) -> None:
        for name, edit in edits.items():
            size, rows = SIZES[name], self.contents[name]
            for source, target in edit.copies:
                for offset in range(size):
                    rows[target * size + offset] = rows.get(source * size + offset, -1)
            for source, target in edit.moves:
                rows[target] = rows[source]
            mirror.tables[name][edit.index : edit.index + len(edit.pages)] = edit.pages

    def _write(self, mirror: Mirror, place: int, label: int) -> None:
        for name, size in SIZES.items():
            self.contents[name][mirror.tables[name][place // size] * size + place % size] = label


TestPages = Pages.TestCase


def test_check_finds_a_page_that_nobody_holds() -> None:
    pool = PagePool(4, 4)
    table = PageTable(pool)
    table.append(6)
    with pytest.raises(PenstockError, match="page 0: expected 0 holders by walk, got 1"):
        pool.check([])
    pool.check([table])


def test_refused_lengths_say_both_numbers() -> None:
    table = PageTable(PagePool(4, 4))
    table.append(6)
    with pytest.raises(PenstockError, match=r"\[0, 6\], got 7"):
        table.truncate(7)
    with pytest.raises(PenstockError, match=r"\[0, 6\], got \[5, 9\)"):
        table.evict(5, 9)
    with pytest.raises(OutOfPages, match="expected 3 free pages, got 2 of 4"):
        table.append(12)
    assert table.length == 6
