"""The page with a wire whose other end is the test: it serves the page's files and says what a server would say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from penstock.server.static import FOLDER, HEADERS, TYPES
from playwright.sync_api import Page, Route, WebSocketRoute, expect

HOME = "http://127.0.0.1:9/"  # Nothing listens there: all of it is answered here.
ROWS = 1000
NARRATION = "Tell me what happens."


class Wired:
    """A page whose server is played by the test. `asked` are its questions in their order, narration included; `beside`
    are those of copies of the newest stream, as the copy's name and the question."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.opened: list[str] = []  # Names of streams.
        self.asked: list[str] = []
        self.beside: list[tuple[str, str]] = []
        self.closed: list[str] = []
        self.cut: list[str] = []  # Copies whose replies were interrupted.
        self.interrupts = 0
        self.up = True
        self._socket: WebSocketRoute | None = None
        self._replies = 0
        self._begun = 0  # Replies of the newest stream.
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.route(HOME + "**", self._file)
        page.route_web_socket(HOME.replace("http", "ws") + "v1/stream", self._connected)
        page.goto(HOME)
        self.state("listening")

    def _file(self, route: Route) -> None:
        name = route.request.url.removeprefix(HOME)
        if name == "v1/access":
            route.fulfill(status=204) if self.up else route.abort()
            return
        file = FOLDER / (name.removeprefix("page/") or "index.html")
        route.fulfill(body=file.read_bytes(), headers={**HEADERS, "content-type": TYPES[file.suffix]})

    def _connected(self, socket: WebSocketRoute) -> None:
        self._socket = socket
        socket.on_message(self._take)
        limits = {"kv_tokens": ROWS, "positions": 32 * ROWS}
        self.say("welcome", model="brook", modalities=["image", "video", "audio"], limits=limits, version=1)

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            return  # Media.
        told: dict[str, Any] = json.loads(message)
        match told["type"]:
            case "open":
                self.opened.append(told["stream"])
                self._begun = -len(self.asked)
                self.say("opened", format="live")
            case "close":
                self.closed.append(told["stream"])
            case "interrupt" if told["stream"] != self.opened[-1]:
                self.cut.append(told["stream"])
            case "ask" if told["stream"] != self.opened[-1]:
                self.beside.append((told["stream"], told["question"]))
            case "ask":
                self.asked.append(told["question"])
            case "interrupt":
                self.interrupts += 1

    def say(self, kind: str, **fields: Any) -> None:
        """Send a message about the newest stream."""
        assert self._socket is not None
        stream = {"stream": self.opened[-1]} if self.opened else {}
        self._socket.send(json.dumps({"type": kind, **stream, **fields}))

    def answer(self, number: int, *texts: str, seen_s: float | None = None, reason: str = "stop") -> None:
        """Answer question `number` of `beside`: in the copy, with reply 2, behind the one that ran. Without a reason
        the answer is not over yet."""
        name = self.beside[number][0]
        seen = None if seen_s is None else {"seq": 1, "modality": "video", "start_us": 0, "stop_us": int(seen_s * 1e6)}
        self.say("done", stream=name, reply=1, reason="interrupted", tokens=0, text="")
        self.say("reply", stream=name, reply=2, seq=5)
        first, *others = texts or [""]
        self.say("token", stream=name, reply=2, index=0, id=0, text=first, seen=seen)
        self.say("accepted", stream=name, reply=2, seq=5, ref=name.rpartition("-")[2])
        for text in others:
            self.say("token", stream=name, reply=2, index=0, id=0, text=text, seen=seen)
        if reason:
            self.say("done", stream=name, reply=2, reason=reason, tokens=1, text="")

    def begin(self) -> None:
        """The next reply begins."""
        self._replies += 1
        self._begun += 1
        self.say("reply", reply=self._replies, seq=self._replies)

    @property
    def waiting(self) -> bool:
        """Whether the newest stream was asked for a reply that has not begun."""
        self.page.evaluate("0")  # What the page has sent is here then.
        return self._begun + len(self.asked) > 0

    def appended(self, rows: int, stop_s: float = 1.0) -> None:
        """The first `rows` rows of the newest stream are in its memory."""
        times = {"start_us": 0, "stop_us": int(stop_s * 1e6)}
        self.say("appended", modality="video", row=0, rows=rows, position=rows, **times)

    def full(self) -> None:
        """The newest stream can hold no more."""
        self.say("error", code="context_overflow", message=f"expected at most {ROWS} rows, got one more", seq=9)

    def token(self, text: str, seen_s: float | None = None) -> None:
        seen = None if seen_s is None else {"seq": 1, "modality": "video", "start_us": 0, "stop_us": int(seen_s * 1e6)}
        self.say("token", reply=self._replies, index=0, id=0, text=text, seen=seen)

    def rest(self) -> None:
        self.say("resting", reply=self._replies, tokens=1)

    def done(self, reason: str = "stop") -> None:
        self.say("done", reply=self._replies, reason=reason, tokens=1, text="")

    def narrate(self, text: str, seen_s: float) -> None:
        """The narration that was asked for begins, says this, and rests."""
        self.begin()
        self.token(text, seen_s)
        self.rest()

    def question(self, text: str) -> None:
        """A person asks."""
        self.page.get_by_label("Question").fill(text)
        self.page.get_by_role("button", name="Ask").click()

    def go(self) -> None:
        """The connection goes."""
        assert self._socket is not None
        self._socket.close(code=1012)

    def anew(self, act: Callable[[], object]) -> None:
        """Do something that a new talk follows, and wait until narration is asked for in it."""
        asked = len(self.asked)
        act()
        for _ in range(100):
            if len(self.asked) > asked:
                return
            self.page.clock.run_for(50)
        raise AssertionError("expected a new talk, got none")

    def state(self, name: str) -> None:
        """Fails where the page does not come to show this state."""
        expect(self.page.locator("#state")).to_have_attribute("data-state", name)

    def lines(self) -> list[str]:
        """The list as it stands, without times."""
        return self.page.locator("#told li div").all_inner_texts()

    def times(self) -> list[list[float]]:
        """The list's times as they stand, those within sentences included: of narration, and of each question with its
        answer."""
        found = self.page.evaluate("""() => {
          const narration = [], groups = [narration];
          for (const line of document.querySelectorAll("#told li")) {
            if (line.matches(".question")) groups.push([]);
            const group = line.matches(".narration") ? narration : groups.at(-1);
            for (const at of line.querySelectorAll("time, span")) group.push(at.dataset.seen ?? at.textContent);
          }
          return groups;
        }""")
        return [[float(text.removesuffix(" s")) for text in group if text.endswith(" s")] for group in found]
