"""A server that wants a key: the page asks for it until it has the right one."""

from __future__ import annotations

import contextlib
from typing import Any

from opened import PATIENCE_MS
from playwright.sync_api import expect
from served import Server


def test_a_key_is_asked_for_until_it_is_right(browser: Any) -> None:
    server = Server()
    server.start(None, "--api-key", "s\u00e9same-\u043a\u043b\u044e\u0447")
    try:
        with contextlib.closing(browser.new_context()) as context:
            page = context.new_page()
            page.goto(server.url)
            expect(page.locator("#state")).to_have_text("Key wanted", timeout=PATIENCE_MS)
            for wrong in ("sesame", "\u201csesame\u201d"):
                page.get_by_label("This server wants a key").fill(wrong)
                page.get_by_role("button", name="Use it").click()
                expect(page.locator("#state")).to_have_text("Wrong key", timeout=PATIENCE_MS)
            page.get_by_label("This server wants a key").fill("s\u00e9same-\u043a\u043b\u044e\u0447")
            page.get_by_role("button", name="Use it").click()
            expect(page.locator("#state")).to_have_text("Connected", timeout=PATIENCE_MS)
            expect(page.locator("#key-form")).to_be_hidden()
    finally:
        server.kill()
