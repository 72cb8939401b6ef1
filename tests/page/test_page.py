"""The page in a real Chromium: what it loads, what a person can do, what it says when the server goes."""

from __future__ import annotations

import contextlib
import re
import urllib.error
import urllib.request
from typing import Any

import pytest
from opened import PATIENCE_MS, Opened
from penstock.demos.brook.world import PLACES
from playwright.sync_api import expect
from served import Server, here

WAYS = {(1, 0): "right", (-1, 0): "left", (0, 1): "down", (0, -1): "up"}


def test_the_page_may_load_nothing_from_elsewhere(brook_url: str) -> None:
    with urllib.request.urlopen(brook_url) as answer:
        headers, text = answer.headers, answer.read().decode()
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "http://" not in text and "https://" not in text and "<style" not in text
    request = urllib.request.Request(brook_url, headers={"If-None-Match": headers["etag"]})
    with pytest.raises(urllib.error.HTTPError, match="304"):
        urllib.request.urlopen(request)


def test_it_loads_without_an_error_and_says_what_brook_knows(opened: Opened) -> None:
    expect(opened.page.locator("#knows")).to_contain_text("coloured shapes")
    expect(opened.page.locator("footer")).to_contain_text("penstock serve")
    expect(opened.page.locator("#told li.said").first).to_contain_text("I see", timeout=PATIENCE_MS)
    assert not opened.errors
    assert not opened.elsewhere


def test_a_thing_is_put_in_dragged_and_painted(opened: Opened) -> None:
    page, pond = opened.page, opened.page.locator("#pond")
    opened.empty()
    page.get_by_role("button", name="Put in a circle").click()
    assert opened.pixel(75, 75) == [220, 40, 40]
    blue = page.get_by_role("button", name="blue")
    blue.click()
    assert opened.pixel(75, 75) == [45, 85, 220]
    expect(blue).to_have_attribute("aria-pressed", "true")
    opened.drag((1 / 6, 1 / 6), (1 / 2, 1 / 2))
    assert opened.pixel(224, 224) == [45, 85, 220]
    pond.press("ArrowRight")
    assert opened.pixel(373, 224) == [45, 85, 220]
    page.get_by_role("button", name="Put in a square").click()
    pond.press("N")  # the next thing is the circle
    pond.press("ArrowLeft")
    assert opened.pixel(224, 224) == [45, 85, 220]
    pond.press("Delete")
    assert opened.pixel(224, 224) == [16, 52, 60] and opened.pixel(75, 75) == [45, 85, 220]
    page.get_by_role("button", name="Take out").click()
    assert opened.pixel(75, 75) == [16, 52, 60]


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


def test_a_green_circle_is_dragged_in_and_read_and_its_new_colour_told(opened: Opened) -> None:
    page = opened.page
    opened.empty()
    page.get_by_role("button", name="green").click()
    page.get_by_role("button", name="Put in a circle").click()
    # However long the first pictures take on their way: they have come when they are spoken of.
    assert any("green circle" in opened.answer("What do you see?") for _ in range(8))
    opened.drag((1 / 6, 1 / 6), (1 / 2, 1 / 6))
    page.wait_for_timeout(1500)  # the pond is seen twice a second, in pairs
    answers = [opened.answer("What colour is the circle?") for _ in range(3)]
    assert answers.count("green.") >= 2, answers
    answer = page.locator("#told li.question + li.said").first
    expect(answer.locator("span").first).to_have_attribute("data-seen", re.compile(r"^\d+\.\d s$"))
    # Narration goes on after the answers.
    assert any(opened.tells_paint(colour) for colour in ("blue", "yellow", "red", "purple"))
    assert not opened.errors


def test_narration_begins_and_ends_with_its_box(opened: Opened) -> None:
    page, box = opened.page, opened.page.get_by_label("narrate")
    opened.tells("I see")
    expect(page.locator("#told li.said span").first).to_have_attribute("data-seen", re.compile(r"^\d+\.\d s$"))
    box.uncheck()
    expect(page.locator("#told li.note")).to_contain_text("Interrupted", timeout=PATIENCE_MS)
    assert opened.answer("How many things do you see?") == "three."
    page.wait_for_timeout(1500)
    begun = page.locator("#told li.said", has_text="I see")
    before = begun.count()
    box.check()  # and at once off and on again: it ends and begins anew
    box.uncheck()
    box.check()
    expect(begun.nth(before)).to_be_visible(timeout=PATIENCE_MS)
    assert not opened.errors


def test_the_figures_are_those_of_the_stream(browser: Any) -> None:
    with here(None, kv_tokens=2048) as url, contextlib.closing(browser.new_context()) as context:
        opened = Opened(context.new_page(), url)
        page = opened.page
        opened.tells("I see")
        expect(page.locator("#freshness")).to_contain_text("ms")
        expect(page.locator("#dropped")).to_have_text("0")
        expect(page.locator("#memory")).not_to_have_text("0 %", timeout=PATIENCE_MS)
        page.evaluate("Object.defineProperty(WebSocket.prototype, 'bufferedAmount', { get: () => 1e9 })")  # a slow line
        expect(page.locator("#dropped")).not_to_have_text("0")
        assert not opened.errors


def test_a_phone_shows_all_of_it_and_a_finger_drags(browser: Any, brook_url: str) -> None:
    with contextlib.closing(
        browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    ) as context:
        opened = Opened(context.new_page(), f"{brook_url}/")
        page = opened.page
        opened.empty()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_role("button", name="Put in a circle").tap()
        page.locator("#pond").scroll_into_view_if_needed()
        box = page.locator("#pond").bounding_box()
        assert box is not None
        places = [
            {"x": box["x"] + box["width"] * part, "y": box["y"] + box["height"] / 6} for part in (1 / 6, 0.3, 0.5)
        ]
        finger = context.new_cdp_session(page)
        for kind, place in zip(("touchStart", "touchMove", "touchMove"), places, strict=True):
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [place]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert opened.pixel(224, 75) == [220, 40, 40] and opened.pixel(75, 75) == [16, 52, 60]
        assert not opened.errors


def test_a_keyboard_reaches_all_of_it(opened: Opened) -> None:
    page, reached = opened.page, set()
    page.locator("body").press("Tab")
    for _ in range(40):
        reached.add(
            page.evaluate(
                "(({ id, value, ariaLabel, textContent }) => id || ariaLabel || value || textContent)"
                "(document.activeElement)"
            )
        )
        page.keyboard.press("Tab")
    assert {
        "pond",
        "size",
        "remove",
        "drift",
        "high",
        "low",
        "interrupt",
        "anew",
        "narrate",
        "question",
        "push",
    } <= reached
    assert {"Put in a star", "blue", "Ask", "What do you see?", "Figures"} <= reached
    page.get_by_role("radio", name="Pond").focus()
    page.keyboard.press("ArrowUp")  # the four sources are one stop, as radio buttons are: arrows choose
    expect(page.get_by_role("radio", name="Film")).to_be_checked()


def test_the_questions_to_click_are_answered_right(opened: Opened) -> None:
    page, start = opened.page, opened.things()
    page.get_by_label("narrate").uncheck()
    while (things := opened.things()) == start:  # until one has begun to move
        page.wait_for_timeout(100)
    page.wait_for_timeout(1500)  # it has arrived
    page.get_by_role("button", name="Move", exact=True).click()
    things = opened.things()
    (moved,) = (name for name in things if things[name] != start[name])
    (x, y), (to_x, to_y) = start[moved], things[moved]
    right = {
        "Where is the circle?": PLACES[things["red circle"][1] * 3 + things["red circle"][0]],
        "How many things are there?": "three",
        "What moved last?": f"the {moved} moved {WAYS[to_x - x, to_y - y]}",
    }
    page.wait_for_timeout(2000)  # it has been seen where it is
    questions = page.locator("#chips button").all_inner_texts()
    assert set(questions) == {"What do you see?", *right}
    for question in questions:
        given = [opened.answer(question)]
        if question == "What do you see?":
            assert all(thing in given[0] for thing in things), given
            continue
        if given != [f"{right[question]}."]:
            given.append(opened.answer(question))  # Brook misses one in twenty or so
        assert given[-1] == f"{right[question]}.", given
    assert not opened.errors


def test_a_server_that_goes_is_told_and_found_again_with_a_key_that_it_wants_now(browser: Any) -> None:
    server = Server()
    server.start()
    with contextlib.ExitStack() as last:
        last.callback(server.kill)
        context = last.enter_context(contextlib.closing(browser.new_context()))
        opened = Opened(context.new_page(), server.url)
        page, state, key = opened.page, opened.page.locator("#state"), opened.page.locator("#key-form")
        server.kill()
        expect(state).to_contain_text("trying again", timeout=PATIENCE_MS)
        expect(state).to_have_attribute("data-state", "gone")
        last.enter_context(here(None, port=server.port, api_key="s\u00e9same-\u043a\u043b\u044e\u0447"))
        expect(state).to_contain_text("Key wanted", timeout=PATIENCE_MS)
        for wrong in ("sesame", "\u201csesame\u201d"):
            page.get_by_label("This server wants a key").fill(wrong)
            page.get_by_role("button", name="Use it").click()
            expect(state).to_contain_text("Wrong key", timeout=PATIENCE_MS)
        page.get_by_label("This server wants a key").fill("s\u00e9same-\u043a\u043b\u044e\u0447")
        page.get_by_role("button", name="Use it").click()
        opened.connected()
        expect(key).to_be_hidden()
        page.get_by_label("Question").fill("What do you see?")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#told li.question ~ li.said").first).to_contain_text(".", timeout=PATIENCE_MS)
