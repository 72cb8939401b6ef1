"""The drawings of docs/life.md are those of the tables."""

from __future__ import annotations

from tests.docs.life import PAGE, written


def test_the_page_is_what_the_tables_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page, "expected the page of the tables as they are: make life"
