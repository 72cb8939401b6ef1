"""The pictures of the formats in a real Chromium: every text is inside its box and its picture, and none lies over
another one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PICTURES = sorted((Path(__file__).parents[2] / "docs").glob("*.svg"))
_TEXTS = """() => [...document.querySelectorAll("text")].map((text) => {
  const { x, y, width, height } = text.getBBox();
  const box = text.classList.contains("box") ? text.previousElementSibling.getBBox() : document.rootElement.getBBox();
  const [left, top, wide, high] = text.classList.contains("box")
    ? [box.x, box.y, box.width, box.height]
    : document.rootElement.getAttribute("viewBox").split(" ").map(Number);
  return [text.textContent, x, y, x + width, y + height, left, top, left + wide, top + high];
})"""


class Text(NamedTuple):
    """Words, where they stand, and what they have to stay in: left, top, right and bottom."""

    words: str
    place: tuple[float, ...]
    inside: tuple[float, ...]

    def fits(self) -> bool:
        left, top, right, bottom = self.place
        return self.inside[0] < left and self.inside[1] < top and right < self.inside[2] and bottom < self.inside[3]

    def over(self, other: Text) -> bool:
        left, top, right, bottom = self.place
        return left < other.place[2] and other.place[0] < right and top < other.place[3] and other.place[1] < bottom


def test_no_text_of_a_picture_lies_over_another_one_or_outside(browser: Any) -> None:
    assert len(PICTURES) > 4
    page = browser.new_page()
    for picture in PICTURES:
        page.goto(picture.as_uri())
        texts = [Text(words, tuple(at[:4]), tuple(at[4:])) for words, *at in page.evaluate(_TEXTS)]
        assert len(texts) > 10
        assert not [text.words for text in texts if not text.fits()], picture.name
        pairs = itertools.combinations(texts, 2)
        assert not [(one.words, other.words) for one, other in pairs if one.over(other)], picture.name
    page.close()


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_a_picture_says_after_for_what_comes_later(picture: Path) -> None:
    assert "behind" not in picture.read_text()
