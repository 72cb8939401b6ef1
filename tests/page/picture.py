"""Makes docs/page.png anew from the real page with Brook: `python tests/page/picture.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import CHROMIUM, QUIET
from opened import Opened
from playwright.sync_api import sync_playwright
from served import Server

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "page.png"

if __name__ == "__main__":
    server = Server()
    server.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            opened = Opened(browser.new_page(viewport={"width": 1100, "height": 760}), server.url)
            opened.tells("moved")
            opened.answer("Where is the circle?")
            opened.page.wait_for_timeout(3000)
            opened.answer("What moved last?")
            opened.page.wait_for_timeout(2500)  # narration goes on behind it
            opened.page.screenshot(path=PICTURE)
            browser.close()
    finally:
        server.kill()
