"""The page with models that take less than Brook does: each gets what it takes, and nothing that it would refuse."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from opened import PATIENCE_MS, Opened
from playwright.sync_api import expect
from served import here

from tests.fixtures.recipe import model_path

SAMPLED = 1_500  # milliseconds in which several pictures and a dozen blocks of sound are taken


@pytest.mark.parametrize(
    ("name", "knows"),
    [
        ("qwen2_5_vl", "looks, and does not listen"),
        ("llava", "gets one picture with each question"),
        ("text", "neither looks nor listens"),
    ],
)
def test_a_model_gets_what_it_takes(browser: Any, name: str, knows: str) -> None:
    with here(model_path(name)) as url, contextlib.closing(browser.new_context()) as context:
        opened = Opened(context.new_page(), url)
        page = opened.page
        expect(page.locator("#knows")).to_contain_text(knows)
        page.locator("h1").click()  # from now on there is sound
        page.wait_for_timeout(SAMPLED)
        page.get_by_label("narrate").uncheck()
        page.get_by_label("Question").fill("What is there?")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#told li.question + li.said")).to_be_visible(timeout=PATIENCE_MS)
        if name != "text":
            expect(page.locator("#freshness")).to_contain_text("ms")  # it has seen something
        assert set(page.locator("#told li.note div").all_inner_texts()) <= {"Interrupted."}
        expect(page.get_by_role("button", name="High beep")).to_be_disabled()
        assert not opened.errors
