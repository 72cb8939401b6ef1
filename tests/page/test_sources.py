"""What the page shows and sounds to the model: the pond's beeps, a camera, the screen, a film, a held button; and
devices are open only while somebody wants them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from opened import PATIENCE_MS, Opened
from penstock.demos.film import make_film
from playwright.sync_api import expect
from served import here

from tests.fixtures.recipe import model_path

# Devices take half a second, and what was given is kept. The screen is a canvas with a green star-like square.
DEVICES = """
window.given = [];
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  await new Promise((done) => setTimeout(done, 500));
  const media = await real(wanted);
  window.given.push(media);
  return media;
};
navigator.mediaDevices.getDisplayMedia = async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 224, height: 224 });
  const pen = canvas.getContext("2d");
  setInterval(() => {
    pen.fillStyle = "rgb(16 52 60)";
    pen.fillRect(0, 0, 224, 224);
    pen.fillStyle = "rgb(45 165 70)";
    pen.fillRect(85, 85, 56, 56);
  }, 100);
  const media = canvas.captureStream(10);
  window.given.push(media);
  return media;
};
"""
_CLOSED = "given.length > 0 && given.every((media) => media.getTracks().every((track) => track.readyState === 'ended'))"


@pytest.fixture
def opened(browser: Any, brook_url: str) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.add_init_script(DEVICES)
    yield Opened(page, f"{brook_url}/")
    context.close()


def closed(opened: Opened) -> None:
    """Fails where a device stays open; the page's policy lets no script wait for that."""
    waited = 0
    while not opened.page.evaluate(_CLOSED):
        assert waited < PATIENCE_MS
        opened.page.wait_for_timeout(50)
        waited += 50


def source(opened: Opened, name: str) -> None:
    opened.page.get_by_role("radio", name=name).check()


def test_beeps_of_the_pond_are_heard(opened: Opened) -> None:
    opened.tells("I see")
    opened.page.get_by_role("button", name="High beep").click()
    opened.tells("a high beep.")
    assert not opened.errors


def test_a_camera_and_its_microphone_reach_the_model_and_are_closed_behind_it(opened: Opened) -> None:
    source(opened, "Camera")
    expect(opened.page.locator("#video")).to_be_visible()
    tools = opened.page.get_by_role("button", name=re.compile("Put in|Size|Take out|beep|^red$"))
    expect(tools).to_have_count(0)  # the pond's own: none is to be seen or reached
    opened.tells("I see a red circle and a yellow square.")
    opened.tells("a high beep.")
    expect(opened.page.locator("#freshness")).to_contain_text("ms")
    source(opened, "Pond")
    expect(opened.page.locator("#pond")).to_be_visible()
    expect(tools.first).to_be_visible()
    closed(opened)
    assert not opened.errors


def test_a_screen_is_seen_until_the_person_stops_it(opened: Opened) -> None:
    source(opened, "Screen")
    expect(opened.page.locator("#video")).to_be_visible()
    opened.tells("I see a green square.")
    # `stop` of a page says nothing to itself; the browser's own button does.
    opened.page.evaluate("given[0].getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(opened.page.locator("#trouble")).to_have_text("The screen has stopped.")
    expect(opened.page.get_by_role("radio", name="Pond")).to_be_checked()
    expect(opened.page.locator("#pond")).to_be_visible()
    closed(opened)
    assert not opened.errors


def test_a_film_is_seen(opened: Opened, tmp_path: Any) -> None:
    film = tmp_path / "film.webm"
    film.write_bytes(make_film(3.0, "webm"))
    source(opened, "Film")
    expect(opened.page.locator("#pond-tools")).to_be_hidden()
    opened.page.locator("#film").set_input_files(film)
    opened.tells("red circle")
    expect(opened.page.locator("#video")).to_have_js_property("ended", True, timeout=PATIENCE_MS)
    source(opened, "Pond")
    expect(opened.page.locator("#pond")).to_be_visible()
    source(opened, "Film")  # the same again
    expect(opened.page.locator("#video")).to_be_visible()
    assert not opened.errors


def test_a_source_that_comes_too_late_is_closed(opened: Opened) -> None:
    source(opened, "Camera")
    source(opened, "Pond")
    closed(opened)
    expect(opened.page.locator("#pond")).to_be_visible()
    expect(opened.page.locator("#video")).to_be_hidden()


def test_who_holds_the_button_is_heard(opened: Opened) -> None:
    opened.page.get_by_label("narrate").uncheck()
    button = opened.page.get_by_role("button", name="Hold to talk")
    button.hover()
    opened.page.mouse.down()
    opened.page.wait_for_timeout(3500)  # the microphone beeps every two seconds
    opened.page.mouse.move(5, 5)  # let go elsewhere
    opened.page.mouse.up()
    expect(opened.page.locator("#told li.question")).to_contain_text("What did you hear last?", timeout=PATIENCE_MS)
    opened.tells("a high beep.")
    closed(opened)
    button.focus()
    opened.page.keyboard.down(" ")
    opened.page.wait_for_timeout(1500)
    opened.page.keyboard.press("Tab")  # the focus goes, with the key held
    expect(opened.page.locator("#told li.question")).to_have_count(2, timeout=PATIENCE_MS)
    closed(opened)
    assert not opened.errors


def test_a_button_that_is_let_go_at_once_leaves_no_microphone_open(opened: Opened) -> None:
    opened.page.get_by_role("button", name="Hold to talk").click()
    expect(opened.page.locator("#trouble")).to_contain_text("The microphone was not open yet")
    closed(opened)
    expect(opened.page.locator("#told li.question")).to_have_count(0)


def test_a_page_from_another_device_says_why_it_has_no_camera(browser: Any) -> None:
    """Over plain http a page of another name than localhost is not secure."""
    with (
        here(model_path("text"), allow_origins=("http://pond.test",)) as url,
        contextlib.closing(browser.new_context()) as context,
    ):
        page = context.new_page()
        page.goto(url.replace("127.0.0.1", "pond.test"))
        assert page.evaluate("isSecureContext") is False
        page.get_by_role("radio", name="Camera").check()
        expect(page.locator("#trouble")).to_contain_text("--tls-cert and --tls-key")
        expect(page.locator("#pond")).to_be_visible()
        expect(page.get_by_role("button", name="Hold to talk")).to_be_disabled()
