"""A page that is open in Chromium and connected, with what went wrong on it."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

PATIENCE_MS = 60_000
OPEN = re.compile("listening|pending|speaking")
TOLD_MS = 6_000  # a unit is one second


_MEANS = """() => {
  const { width } = document.getElementById("pond");
  const { data } = document.getElementById("pond").getContext("2d").getImageData(0, 0, width, width);
  const found = {};
  for (let y = 5; y < width; y += 10) for (let x = 5; x < width; x += 10) {
    const colour = [...data.slice(4 * (y * width + x), 4 * (y * width + x) + 3)].join(" ");
    (found[colour] ??= []).push([x / width, y / width]);
  }
  const mean = (points, axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  return ["220 40 40", "240 225 50", "45 85 220"].map((colour) => [0, 1].map((axis) => mean(found[colour], axis)));
}"""


def places(page: Page) -> dict[str, tuple[float, float]]:
    """Where the things that are there at the start are now, in widths of the pond, read off its pixels."""
    return dict(zip(("red circle", "yellow star", "blue square"), page.evaluate(_MEANS), strict=True))


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
        self.connected()

    @staticmethod
    def _ours(address: str, url: str) -> bool:
        return address.startswith((url, url.replace("http", "ws"), "blob:", "data:"))

    def connected(self) -> None:
        """Fails where the page has no talk that is open."""
        expect(self.page.locator("#state")).to_have_attribute("data-state", OPEN, timeout=PATIENCE_MS)

    def empty(self) -> None:
        """Take out what is in the pond at the start."""
        for _ in range(3):
            self.page.get_by_role("button", name="Take out").click()

    def answer(self, question: str) -> str:
        """Ask; the sentence that comes behind the question."""
        asked = self.page.locator("#told li.question").count()
        self.page.get_by_label("Question").fill(question)
        self.page.get_by_role("button", name="Ask").click()
        told = self.page.locator("#told li.question + li.said div").nth(asked)
        expect(told).to_contain_text(".", timeout=PATIENCE_MS)
        return told.inner_text()

    def things(self) -> dict[str, tuple[int, int]]:
        """The things that are there at the start, and the field, column and row, that each is in now."""
        return {name: (int(3 * x), int(3 * y)) for name, (x, y) in places(self.page).items()}

    def tells_paint(self, colour: str) -> bool:
        """Paint the chosen thing; whether the narration tells it. Brook misses one in ten or so."""
        self.page.get_by_role("button", name=colour).click()
        try:
            told = self.page.locator("#told li.said", has_text=f"circle turned {colour}.").first
            expect(told).to_be_visible(timeout=TOLD_MS)
        except AssertionError:
            return False
        return True

    def tells(self, words: str) -> None:
        """Fails where narration or answers do not say this. On a slow machine a pause may come within a sentence, and
        the page begins a line there: so what is said is taken as one text."""
        waited = 0
        while words not in (
            said := " ".join(" ".join(self.page.locator("#told li.said div").all_inner_texts()).split())
        ):
            assert waited < PATIENCE_MS, f"expected {words!r}, got {said!r}"
            self.page.wait_for_timeout(50)
            waited += 50

    def drag(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Drag with the mouse from one place of the pond to another, in widths of it."""
        box = self.page.locator("#pond").bounding_box()
        assert box is not None
        (x, y), (to_x, to_y) = ((box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, stop))
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(to_x, to_y, steps=5)
        self.page.mouse.up()

    def pixel(self, x: int, y: int) -> list[int]:
        """The colour of a place of the pond, which is 448 wide here."""
        pen = "document.getElementById('pond').getContext('2d')"
        return self.page.evaluate(f"([x, y]) => [...{pen}.getImageData(2 * x, 2 * y, 1, 1).data].slice(0, 3)", [x, y])
