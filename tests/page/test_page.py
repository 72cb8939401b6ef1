"""The page in a real Chromium: what it loads, what a person can do, what it says when the server goes."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from penstock.demos.film import make_film
from playwright.sync_api import Page, expect

PATIENCE_MS = 60_000
TOLD_MS = 6_000  # a unit is one second


class Opened:
    """A page with what went wrong on it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: None if self._ours(request.url, url) else self.elsewhere.append(request.url))
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        expect(page.locator("#state")).to_have_text("Connected", timeout=PATIENCE_MS)

    @staticmethod
    def _ours(address: str, url: str) -> bool:
        return address.startswith((url, url.replace("http", "ws"), "blob:", "data:"))

    def answer(self, question: str) -> str:
        """Ask; the sentence that comes behind the question."""
        asked = self.page.locator("#told li.question").count()
        self.page.get_by_label("Question").fill(question)
        self.page.get_by_role("button", name="Ask").click()
        told = self.page.locator("#told li.question + li.said div").nth(asked)
        expect(told).to_contain_text(".", timeout=PATIENCE_MS)
        return told.inner_text()

    def tells_paint(self, colour: str) -> bool:
        """Paint the chosen thing; whether the narration tells it. Brook misses one in ten or so."""
        self.page.get_by_role("button", name=colour).click()
        try:
            told = self.page.locator("#told li.said", has_text=f"circle turned {colour}.").first
            expect(told).to_be_visible(timeout=TOLD_MS)
        except AssertionError:
            return False
        return True


@pytest.fixture
def opened(browser: Any, server: Any) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = Opened(context.new_page(), server.url)
    yield page
    context.close()


def test_the_page_may_load_nothing_from_elsewhere(server: Any) -> None:
    with urllib.request.urlopen(server.url) as answer:
        headers, text = answer.headers, answer.read().decode()
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "http://" not in text and "https://" not in text and "<style" not in text
    request = urllib.request.Request(server.url, headers={"If-None-Match": headers["etag"]})
    with pytest.raises(urllib.error.HTTPError, match="304"):
        urllib.request.urlopen(request)


def test_it_loads_without_an_error_and_says_what_brook_knows(opened: Opened) -> None:
    expect(opened.page.locator("#knows")).to_contain_text("coloured shapes")
    expect(opened.page.locator("footer")).to_contain_text("penstock serve")
    expect(opened.page.locator("#told li.said").first).to_contain_text("I see", timeout=PATIENCE_MS)
    assert not opened.errors
    assert not opened.elsewhere


def test_a_thing_is_put_in_dragged_and_painted(opened: Opened) -> None:
    page = opened.page
    pixel = (
        "([x, y]) => [...document.getElementById('pond').getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)"
    )
    page.get_by_role("button", name="Put in a circle").click()
    assert page.evaluate(pixel, [75, 75]) == [220, 40, 40]
    page.get_by_role("button", name="blue").click()
    assert page.evaluate(pixel, [75, 75]) == [45, 85, 220]
    box = page.locator("#pond").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 6, box["y"] + box["height"] / 6)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert page.evaluate(pixel, [224, 224]) == [45, 85, 220]
    page.locator("#pond").press("ArrowRight")
    assert page.evaluate(pixel, [373, 224]) == [45, 85, 220]
    page.get_by_role("button", name="Take out").click()
    assert page.evaluate(pixel, [373, 224]) == [16, 52, 60]


def test_a_question_is_answered_and_a_narration_interrupted(opened: Opened) -> None:
    page = opened.page
    expect(page.locator("#told li.said").first).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_label("Question").fill("How many things do you see?")
    page.get_by_role("button", name="Ask").click()
    question = page.locator("#told li.question")
    expect(question).to_contain_text("How many things", timeout=PATIENCE_MS)
    expect(page.locator("#told li.question ~ li.said").first).to_contain_text(".", timeout=PATIENCE_MS)
    expect(page.locator("#latency")).to_contain_text("ms")
    page.get_by_role("button", name="Interrupt").click()
    expect(page.locator("#told li.note")).to_contain_text("Interrupted", timeout=PATIENCE_MS)
    assert not opened.errors


def test_a_red_circle_is_dragged_in_and_read_and_its_new_colour_told(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("button", name="red").click()
    page.get_by_role("button", name="Put in a circle").click()
    # However long the first pictures take on their way: it has been seen when it is spoken of.
    expect(page.locator("#told li.said", has_text="red circle").first).to_be_visible(timeout=PATIENCE_MS)
    box = page.locator("#pond").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 6, box["y"] + box["height"] / 6)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 6, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1500)  # the pond is seen twice a second, in pairs
    answers = [opened.answer("What colour is the circle?") for _ in range(3)]
    assert answers.count("red.") >= 2, answers
    answer = page.locator("#told li.question + li.said").first
    expect(answer.locator("span").first).to_have_attribute("data-seen", re.compile(r"^\d+\.\d s$"))
    again = page.locator("#told li.question ~ li.said", has_text="I see a red circle.")
    expect(again.first).to_be_visible(timeout=PATIENCE_MS)  # narration goes on behind the answer
    assert any(opened.tells_paint(colour) for colour in ("blue", "yellow", "green", "purple"))
    assert not opened.errors


def test_the_camera_and_a_film_are_sources_too(opened: Opened, tmp_path: Any) -> None:
    page = opened.page
    page.get_by_role("radio", name="camera").check()
    expect(page.locator("#video")).to_be_visible()
    expect(page.locator("#video")).to_have_js_property("videoWidth", 224)
    expect(page.locator("#trouble")).to_be_hidden()
    film = tmp_path / "film.webm"
    film.write_bytes(make_film(3.0, "webm"))
    page.get_by_role("radio", name="a film").check()
    page.locator("#film").set_input_files(film)
    expect(page.locator("#video")).to_have_js_property("ended", True)
    page.get_by_role("radio", name="the pond").check()
    expect(page.locator("#pond")).to_be_visible()
    assert not opened.errors


def test_a_server_that_goes_is_told_and_found_again(opened: Opened, server: Any) -> None:
    page = opened.page
    server.kill()
    expect(page.locator("#state")).to_contain_text("trying again", timeout=PATIENCE_MS)
    assert page.locator("#state").get_attribute("data-state") == "gone"
    server.start()
    expect(page.locator("#state")).to_have_text("Connected", timeout=PATIENCE_MS)
    page.get_by_label("Question").fill("What do you see?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#told li.question ~ li.said").first).to_contain_text(".", timeout=PATIENCE_MS)


def test_a_phone_shows_all_of_it_and_a_keyboard_reaches_all_of_it(browser: Any, server: Any) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = Opened(context.new_page(), server.url).page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    reached = set()
    page.locator("body").press("Tab")
    for _ in range(40):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
        page.keyboard.press("Tab")
    assert {"pond", "size", "remove", "interrupt", "anew", "narrate", "question", "push"} <= reached
    assert {"Put in a star", "blue"} <= reached
    context.close()
