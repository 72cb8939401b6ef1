"""Makes docs/page.png and docs/page.webp from the real page with Brook: `make picture`.

The first is a picture of the page, the second shows it in motion: Brook narrates, answers, and says what a person drags
and paints. Every picture of the second stands for as long as it really did.
"""

from __future__ import annotations

import base64
import contextlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from conftest import CHROMIUM, QUIET
from opened import Opened, places
from PIL import Image
from playwright.sync_api import Error, expect, sync_playwright
from served import Server

DOCS = Path(__file__).resolve().parents[2] / "docs"
WIDTH, HEIGHT = 1100, 760
SHOWN = (880, 608)  # of the picture in motion
PAINT_S = 13.0
PATIENCE_MS = 8_000  # for the narration of what was painted
READ_MS = 1_500  # and to read it
EVERY_S = 0.1  # no two pictures are nearer
LAST_S = 2.0  # how long the last one stands
GRAB_S, DRAG_STEPS, DRAG_STEP_S = 9.0, 5, 0.12
Act = tuple[float, Callable[[], None]]


def still(opened: Opened) -> None:
    """A narration, two answers, and the narration after them."""
    opened.tells("moved")
    opened.answer("Where is the circle?")
    opened.page.wait_for_timeout(3000)
    opened.answer("What moved last?")
    opened.page.wait_for_timeout(2500)
    opened.page.screenshot(path=DOCS / "page.png")


def acts(opened: Opened) -> list[Act]:
    """What a person does, and after how many seconds."""
    page = opened.page
    question = page.get_by_label("Question")
    box = page.locator("#pond").bounding_box()
    assert box is not None
    hand = {"x": 0.0, "y": 0.0, "step": 0.0}

    def grab() -> None:
        x, y = places(page)["yellow star"]
        step = (-1 if y > 0.5 else 1) * box["height"] / 3 / DRAG_STEPS
        hand.update(x=box["x"] + box["width"] * x, y=box["y"] + box["height"] * y, step=step)
        page.mouse.move(hand["x"], hand["y"])
        page.mouse.down()

    def drag() -> None:
        hand["y"] += hand["step"]
        page.mouse.move(hand["x"], hand["y"])

    return [
        (1.0, lambda: question.fill("Where is the circle?")),
        (2.0, page.get_by_role("button", name="Ask").click),
        (GRAB_S, grab),
        *((GRAB_S + DRAG_STEP_S * (1 + step), drag) for step in range(DRAG_STEPS)),
        (GRAB_S + DRAG_STEP_S * (1 + DRAG_STEPS), page.mouse.up),
        (PAINT_S, page.get_by_role("button", name="purple").click),
    ]


def motion(opened: Opened) -> None:
    """What a person does, until the narration has said the last of it. Fails where Brook misses that."""
    opened.tells("I see")
    page, taken = opened.page, []
    session = page.context.new_cdp_session(page)

    def take(frame: dict[str, Any]) -> None:
        taken.append((frame["metadata"]["timestamp"], base64.b64decode(frame["data"])))
        with contextlib.suppress(Error):  # the page is closed
            session.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

    session.on("Page.screencastFrame", take)
    session.send("Page.startScreencast", {"format": "png", "everyNthFrame": 3})
    start = time.monotonic()
    for at, act in acts(opened):
        page.wait_for_timeout(max(0.0, 1000 * (start + at - time.monotonic())))
        act()
    expect(page.locator("#told li.said", has_text="turned purple.")).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_timeout(READ_MS)
    session.send("Page.stopScreencast")
    write(taken)


def write(taken: list[tuple[float, bytes]]) -> None:
    """Pictures (PNG) and when they were taken, in seconds, as docs/page.webp."""
    kept = taken[:1]
    for frame in taken[1:]:
        if frame[0] - kept[-1][0] >= EVERY_S:
            kept.append(frame)
    if kept[-1] is not taken[-1]:
        kept[-1] = (kept[-1][0], taken[-1][1])
    ends = [*(at for at, _ in kept[1:]), kept[-1][0] + LAST_S]
    durations = [round(1000 * (end - at)) for (at, _), end in zip(kept, ends, strict=True)]
    first, *others = [
        Image.open(io.BytesIO(data)).convert("RGB").resize(SHOWN, Image.Resampling.LANCZOS) for _, data in kept
    ]
    how = {"duration": durations, "loop": 0, "quality": 70, "method": 6}
    first.save(DOCS / "page.webp", save_all=True, append_images=others, **how)


if __name__ == "__main__":
    server = Server()
    server.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            for take in (still, motion):
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
                take(Opened(page, server.url))
                page.close()
            browser.close()
    finally:
        server.kill()
