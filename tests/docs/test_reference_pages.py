"""The pages in docs/reference/ are what the docstrings say, and the docstrings say what a caller has to know."""

from __future__ import annotations

import ast

import pytest
import reference
from pages import ROOT


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_what_the_docstrings_give(name: str) -> None:
    """`make reference` writes the pages."""
    assert (reference.FOLDER / f"{name}.md").read_text(encoding="utf-8") == reference.page(name)


def test_there_are_no_other_pages() -> None:
    assert {path.stem for path in reference.FOLDER.iterdir()} == set(reference.PAGES)


def awaited(kind: str) -> list[tuple[str, str]]:
    """Name and docstring of what a class has its callers await."""
    page = reference.PAGES[kind.lower()]
    home = reference.defined(kind, ROOT / page.source)
    assert home is not None
    listed = [reference.methods(*home)[name] for name in page.classes[kind]]
    return [
        (node.name, ast.get_docstring(node) or "")
        for node in listed
        if isinstance(node, ast.AsyncFunctionDef) or node.name in ("__aiter__", "__anext__")
    ]


@pytest.mark.parametrize("kind", ["Engine", "Stream", "Reply"])
def test_what_is_awaited_says_what_cancelling_does(kind: str) -> None:
    assert awaited(kind)
    assert not [name for name, text in awaited(kind) if "cancel" not in text]


@pytest.mark.parametrize("kind", ["Engine", "Reply"])
def test_what_is_awaited_says_what_it_raises(kind: str) -> None:
    """Of a `Stream` its class says it for all."""
    assert not [name for name, text in awaited(kind) if "raise" not in text.lower()]


REQUEST = """
class Request(Struct):
    '''A request.

    known: explained.
    '''

    known: int
    new: str
"""


def test_a_field_that_nobody_explains_is_found() -> None:
    node = ast.parse(REQUEST).body[0]
    assert isinstance(node, ast.ClassDef)
    assert reference.written(node, {"known": "int"}) == ["A request.", "- **`known`**: `int`<br>explained."]
    with pytest.raises(ValueError, match="explained, got new$"):
        reference.written(node, reference.fields(node))
    with pytest.raises(ValueError, match="explained, got known$"):
        reference.written(node, {"other": "int"}, {"other": "as above."})
