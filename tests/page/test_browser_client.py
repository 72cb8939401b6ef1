"""The browser client of the guide, in Chromium: twenty lines that show a camera and write down what the model says."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from opened import PATIENCE_MS
from playwright.sync_api import expect

GUIDE = (Path(__file__).parents[2] / "docs" / "browser-client.md").read_text(encoding="utf-8")
PAGE = re.findall(r"^```html\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)[0]


def test_it_has_twenty_lines() -> None:
    script = re.findall(r"<script>\n(.*)</script>", PAGE, re.DOTALL)[0]
    assert len(script.splitlines()) == 20


def test_it_shows_the_camera_and_says_what_the_model_says(browser: Any, brook_url: str) -> None:
    body = PAGE.replace("127.0.0.1:8000", brook_url.removeprefix("http://"))
    with contextlib.closing(browser.new_context()) as context:
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{brook_url}/health")  # an origin that the server lets in, with a page that has no rules of its own
        page.set_content(body)
        expect(page.locator("#words")).to_contain_text("red circle", timeout=PATIENCE_MS)
        assert not errors


@pytest.mark.parametrize("named", ["camera", "words"])
def test_what_the_script_names_is_on_the_page(named: str) -> None:
    assert f'id="{named}"' in PAGE and re.search(rf"\b{named}\.", PAGE)
