"""The key of a page says what it and all before it hold, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.conversation.keys import Keys
from penstock.engine.span import Rows, Stored

SIZE = 4


@dataclass(frozen=True)
class Row:
    """One row, with the content of the piece of media it is of and its place in that."""

    id: int
    position: tuple[int, int, int]
    content: bytes = b""
    place: int = 0


def text(id: int, position: int) -> Row:
    return Row(id, (position, position, position))


def laid(rows: list[Row], cuts: set[int]) -> tuple[list[Rows], list[int]]:
    """The rows as runs: those of a piece of media are one, and text is cut before each of `cuts`."""
    runs, starts = [], []
    edges = [0]
    for place in range(1, len(rows)):
        before, here = rows[place - 1], rows[place]
        together = here.content and here.content == before.content and here.place == before.place + 1
        if not together and (here.content or before.content or place in cuts):
            edges.append(place)
    for start, stop in zip(edges, [*edges[1:], len(rows)], strict=True):
        run = rows[start:stop]
        ids = np.array([row.id for row in run], dtype=np.int64)
        positions = np.array([row.position for row in run], dtype=np.int64).T
        stored = Stored(start + 1, 0, len(run), 8) if run[0].content else None
        runs.append(Rows(ids, positions, stored, content=run[0].content))
        starts.append(start)
    return runs, starts


def keys(rows: list[Row], cuts: set[int] = frozenset(), salt: str | None = None) -> list[bytes]:  # pyright: ignore[reportArgumentType]
    return list(Keys(salt, SIZE).up_to(len(rows) // SIZE, *laid(rows, cuts)))


@st.composite
def sequences(draw: st.DrawFn) -> list[Row]:
    rows: list[Row] = []
    for content in draw(st.lists(st.sampled_from([b"", b"", b"picture", b"film"]), min_size=1, max_size=5)):
        for place in range(draw(st.integers(1, 6))):
            rows.append(Row(7, (len(rows), 0, place), content, place) if content else text(place, len(rows)))
    return rows


places = st.sets(st.integers(0, 40))


@given(sequences(), places, places)
def test_how_text_is_cut_into_runs_changes_nothing(rows: list[Row], cuts: set[int], others: set[int]) -> None:
    assert keys(rows, cuts) == keys(rows, others)
    assert len(set(keys(rows))) == len(rows) // SIZE


CHANGES: list[Callable[[Row], Row]] = [
    lambda row: replace(row, id=row.id + 1),
    lambda row: replace(row, position=(row.position[0] + 1, *row.position[1:])),
    lambda row: replace(row, position=(row.position[0], row.position[1] + 1, row.position[2])),
    lambda row: replace(row, position=(*row.position[:2], row.position[2] + 1)),
    lambda row: replace(row, content=b"another", place=0),
    lambda row: replace(row, content=b"", place=0) if row.content else replace(row, content=b"film"),
]


@given(sequences(), st.data(), st.sampled_from(CHANGES))
def test_a_row_that_is_another_changes_its_page_and_those_after_it(
    rows: list[Row], data: st.DataObject, change: Callable[[Row], Row]
) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    others = [*rows[:place], change(rows[place]), *rows[place + 1 :]]
    for number, (one, other) in enumerate(zip(keys(rows), keys(others), strict=True)):
        assert (one == other) == (number < place // SIZE)


def test_how_many_rows_are_of_a_picture_counts() -> None:
    """A word that has the id of a placeholder is no part of it."""
    words = [text(0, 0), text(0, 1)]
    picture = [Row(7, (2, 0, 0), b"picture", 0), Row(7, (3, 0, 1), b"picture", 1)]
    assert keys([*words, *picture]) != keys([*words, picture[0], replace(picture[1], content=b"", place=0)])


@pytest.mark.parametrize("others", [None, "", "b"])
def test_another_salt_shares_nothing(others: str | None) -> None:
    rows = [text(place, place) for place in range(3 * SIZE)]
    assert not set(keys(rows, salt="a")) & set(keys(rows, salt=others))
    assert keys(rows, salt=others) == keys(rows, salt=others)


def test_media_of_unknown_content_has_no_key() -> None:
    """Nor what comes after it; embeddings that have been let go do not make it words."""
    rows = [text(place, place) for place in range(4 * SIZE)]
    runs, starts = laid(rows, {SIZE, 2 * SIZE})
    for spoilt in (replace_content(runs[1], None), Rows(runs[1].ids, runs[1].positions, Stored(1, 0, SIZE, 8))):
        found = Keys(None, SIZE)
        assert len(found.up_to(4, [runs[0], spoilt, runs[2]], starts)) == 1
        assert found.up_to(4, runs, starts) == keys(rows), "what is laid there now is known"


def replace_content(run: Rows, content: bytes | None) -> Rows:
    return Rows(run.ids, run.positions, run.stored, run.seen, run.atomic, content)


@given(sequences(), sequences(), st.data())
def test_what_is_laid_again_has_its_own_keys(rows: list[Row], others: list[Row], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(rows)))
    found = Keys("a", SIZE)
    found.up_to(len(rows) // SIZE, *laid(rows, set()))
    twin = found.copy()
    found.cut(cut)
    again = [*rows[:cut], *others]
    pages = len(again) // SIZE
    assert found.up_to(pages, *laid(again, {cut}))[:pages] == Keys("a", SIZE).up_to(pages, *laid(again, {cut}))
    assert twin.up_to(len(rows) // SIZE, *laid(rows, set())) == keys(rows, salt="a")
