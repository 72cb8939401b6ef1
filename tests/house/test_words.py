"""Words that readers stumbled over are not used in docstrings, comments and pages."""

from __future__ import annotations

import io
import re
import tokenize

import pytest

from .source import FOLDERS, ROOT, modules

# What was meant, by the odd word.
ODD = {"anew": "again"}


def prose(text: str) -> str:
    """Without names in code."""
    return re.sub(r"`[^`]*`|\*[^*\n]*\*", "", text)


@pytest.mark.parametrize("word", ODD)
def test_no_odd_words(word: str) -> None:
    pattern, found = re.compile(rf"\b{word}\b", re.IGNORECASE), []
    for path in modules(*FOLDERS):
        source = path.read_text(encoding="utf-8")
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            is_prose = token.type == tokenize.COMMENT or token.string.startswith(('"""', 'r"""'))
            if is_prose and pattern.search(prose(token.string)):
                found.append(f"{path.relative_to(ROOT)}:{token.start[0]}")
    pages = [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.name != "CHANGELOG.md"]
    found += [str(path.relative_to(ROOT)) for path in pages if pattern.search(prose(path.read_text(encoding="utf-8")))]
    assert not found, f"write {ODD[word]!r}"
