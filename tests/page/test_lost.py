"""A page whose connection is lost goes on with its talk: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from opened import PATIENCE_MS, Opened
from playwright.sync_api import Page, WebSocket, expect
from served import Line, here, line


class Watched:
    """What goes over the WebSockets of a page: `heard` from the server, and `sent` to it, a message that was sent more
    than once only once (the media of a page is told apart by its times)."""

    def __init__(self, page: Page) -> None:
        self.sockets = 0
        self.heard: list[dict[str, Any]] = []
        self.sent: dict[str, dict[str, Any]] = {}
        page.on("websocket", self._opened)

    def _opened(self, socket: WebSocket) -> None:
        self.sockets += 1
        socket.on("framereceived", lambda frame: self.heard.append(json.loads(frame)))
        socket.on("framesent", self._sent)

    def _sent(self, frame: str | bytes) -> None:
        text = frame if isinstance(frame, str) else frame[2 : 2 + int.from_bytes(frame[:2], "little")].decode()
        self.sent[text] = json.loads(text)

    def of(self, stream: str) -> list[dict[str, Any]]:
        """The events of a stream as they came."""
        return [message for message in self.heard if message.get("stream") == stream and message.get("number")]

    def number(self, ref: str) -> int:
        """The number of the question `ref` among the inputs that were sent to its stream."""
        ask = next(text for text, message in self.sent.items() if message.get("ref") == ref)
        sent = list(self.sent.values())[: list(self.sent).index(ask) + 1]
        kinds = ("frame", "pcm", "ask")
        return sum(message["type"] in kinds and message["stream"] == self.sent[ask]["stream"] for message in sent)


@contextlib.contextmanager
def watched(browser: Any, url: str) -> Iterator[tuple[Opened, Watched, Line]]:
    """A page that reaches the server at `url` over a line that can be cut."""
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    with line(url) as cuttable, contextlib.closing(context):
        page = context.new_page()
        seen = Watched(page)
        yield Opened(page, cuttable.url), seen, cuttable
        page.goto("about:blank")  # a page that is left says so, and the server does not wait for it


@pytest.fixture(scope="module")
def narrow() -> Iterator[str]:
    """A server that takes one stream of a connection, and does not keep lost ones for long."""
    with here(None, resume_seconds=0.5, max_streams=1) as url:
        yield url


def lines(page: Page, kind: str) -> str:
    """What stands in the list of this kind, without spaces."""
    return "".join("".join(page.locator(f"#told li.{kind} div").all_inner_texts()).split())


def _narrates(page: Page) -> None:
    """Fails where the narration does not go on; things move every five seconds."""
    said = lines(page, "narration")
    page.wait_for_function(
        "said => [...document.querySelectorAll('#told li.narration div')]"
        ".map((line) => line.textContent).join('').replace(/\\s/g, '') !== said",
        arg=said,
    )


def test_the_talk_goes_on_over_cuts_and_nothing_is_lost_or_comes_twice(browser: Any, brook_url: str) -> None:
    with watched(browser, brook_url) as (opened, seen, cuttable):
        page = opened.page
        opened.tells("I see")
        for away_ms in (0, 1200):
            cuttable.up = False
            cuttable.cut()
            expect(page.locator("#state")).to_have_attribute("data-state", "gone")
            page.get_by_label("Question").fill("How many things are there?")
            page.get_by_role("button", name="Ask").click()
            page.wait_for_timeout(away_ms)
            cuttable.up = True
            opened.connected()
            page.wait_for_timeout(700)
        expect(page.locator("#told li.answer")).to_have_count(2, timeout=PATIENCE_MS)
        assert page.locator("#told li.answer div").all_inner_texts() == ["three."] * 2
        page.get_by_label("narrate").uncheck()
        assert opened.answer("How many things are there?") == "three."
        events = seen.of("page-1")
        assert [event["number"] for event in events] == list(range(1, len(events) + 1))
        narration = next(event["reply"] for event in events if event["type"] == "reply")
        said = [event["text"] for event in events if event["type"] == "token" and event["reply"] == narration]
        assert lines(page, "narration") == "".join("".join(said).split())
        last = [message for message in seen.heard if message["type"] == "accepted"][-1]
        assert last["seq"] == seen.number(last["ref"])
        assert seen.sockets >= 3
        assert page.locator("#told li.note div").all_inner_texts() == ["Interrupted."]
        expect(page.locator("#trouble")).to_be_hidden()


def test_a_talk_that_is_gone_for_good_is_told_and_a_new_one_begins(browser: Any, brook_url: str, narrow: str) -> None:
    """The server was started again, and does not know the talk; then the connection is gone for too long."""
    with watched(browser, brook_url) as (opened, seen, cuttable):
        page, notes = opened.page, opened.page.locator("#told li.note")
        opened.tells("I see")
        cuttable.leads_to = narrow
        cuttable.cut()
        expect(notes).to_contain_text("the server was started again", timeout=PATIENCE_MS)
        opened.connected()
        _narrates(page)
        cuttable.up = False
        cuttable.cut()
        expect(notes.nth(1)).to_contain_text("gone for more than 0.5 s", timeout=PATIENCE_MS)
        cuttable.up = True
        opened.connected()
        _narrates(page)
        expect(notes).to_have_count(2)
        opens = [message["stream"] for message in seen.sent.values() if message["type"] == "open"]
        assert opens == ["page-1", "page-2", "page-3"]


def test_a_question_is_answered_beside_a_narration_that_goes_on(browser: Any, brook_url: str) -> None:
    with watched(browser, brook_url) as (opened, seen, _):
        page = opened.page
        opened.tells("I see")
        for question, answer in (("How many things are there?", "three."), ("What do you see?", "circle")):
            assert answer in opened.answer(question)
        _narrates(page)
        expect(page.locator("#told li.question + li.answer")).to_have_count(2)
        kinds = [event["type"] for event in seen.of("page-1")]
        assert kinds.count("reply") == 1 and "done" not in kinds
        closed = {message["stream"] for message in seen.heard if message["type"] == "closed"}
        assert closed == {message["as"] for message in seen.sent.values() if message["type"] == "fork"}
        assert len(closed) == 2


def test_a_copy_that_is_refused_is_told_at_its_question_and_nothing_else_is_lost(browser: Any, narrow: str) -> None:
    with watched(browser, narrow) as (opened, seen, _):
        page = opened.page
        opened.tells("I see")
        page.get_by_label("Question").fill("How many things are there?")
        page.get_by_role("button", name="Ask").click()
        refusal = "Not answered. streams of one connection: at most 1, got one more"
        expect(page.locator("#told li.question")).to_contain_text(refusal, timeout=PATIENCE_MS)
        _narrates(page)
        assert "done" not in [event["type"] for event in seen.of("page-1")]
        expect(page.locator("#trouble")).to_be_hidden()
