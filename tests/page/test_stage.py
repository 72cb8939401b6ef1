"""What the page shows of a talk, whatever a server says and when: the test itself is the server."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import places
from playwright.sync_api import expect
from wired import NARRATION, ROWS, Wired

FRESH_MS = 8_000  # a new talk begins by itself within three seconds
LONG = "the red circle moved right and then it came back and turned blue. "


@pytest.fixture(scope="module")
def page(browser: Any) -> Iterator[Any]:
    with contextlib.closing(browser.new_context(viewport={"width": 1100, "height": 800})) as context:
        page = context.new_page()
        page.clock.install()  # it runs as it does, and further where a test lets it
        yield page


@pytest.fixture
def wired(page: Any) -> Iterator[Wired]:
    page.unroute_all()
    wired = Wired(page)
    yield wired
    assert not wired.errors


def test_answers_stand_behind_their_questions_while_narration_goes_on_in_its_own_lines(wired: Wired) -> None:
    wired.narrate("I see a circle.", 1.0)
    wired.question("What colour is it?")
    question = wired.page.locator("#told li.question")
    expect(question).to_have_attribute("data-state", "pending")
    wired.question("Where is it?")
    wired.token("it moved", 2.0)
    wired.answer(1, "left.", seen_s=1.5)
    expect(wired.page.locator("#caption")).to_contain_text("Where is it?")
    expect(wired.page.locator("#caption strong")).to_have_text("left.")
    wired.token(" right.", 2.0)
    wired.token("it turned blue.", 3.0)
    wired.answer(0, "red.", " and round.", seen_s=1.0)
    expect(wired.page.locator("#caption")).to_contain_text("What colour is it?")
    wired.token("it stopped.", 4.0)
    expect(question.nth(0)).to_have_attribute("data-state", "answered")
    narration = ["it turned blue.", "it stopped."]
    answers = ["What colour is it?", "red.", "and round.", "Where is it?", "left."]
    wired.page.wait_for_function("document.querySelectorAll('#told li').length === 9")
    assert [line for line in wired.lines() if line not in answers] == ["I see a circle.", "it moved right.", *narration]
    assert [line for line in wired.lines() if line in answers] == answers
    assert wired.closed == [name for name, _ in (wired.beside[1], wired.beside[0])]
    expect(wired.page.locator("#caption strong")).to_have_text("and round.")  # a person reads it
    wired.page.clock.run_for(3000)
    wired.token("it went.", 5.0)
    expect(wired.page.locator("#caption strong")).to_have_text("it went.")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("token"), st.none() | st.floats(0, 50)),
        st.tuples(st.just("appended"), st.floats(0, 50)),
        st.tuples(st.just("answer"), st.floats(0, 50)),
        st.sampled_from(["reply", "ask", "done", "connection"]).map(lambda name: (name, None)),
    ),
    min_size=10,
    max_size=30,
)


@settings(max_examples=8)
@given(steps=STEPS)
def test_times_never_run_backwards(wired: Wired, steps: list[tuple[str, float | None]]) -> None:
    """Whatever order things come in: seen times that jump about, questions, talks that end with their connection. An
    answer that a copy gives has times of its own, since narration may have seen more meanwhile."""
    wired.anew(lambda: wired.page.get_by_role("button", name="Start anew").click())
    lost = running = False
    answered = len(wired.beside)
    for name, seen_s in [("reply", None), ("token", 3.0), *steps]:
        if name == "reply" and not running and wired.waiting:
            wired.begin()
            running = True
        elif name == "token" and running:
            wired.token("so it is. " if int(seen_s or 0) % 2 else "a ", seen_s)
        elif name == "appended" and seen_s is not None:
            wired.appended(1, stop_s=seen_s)
        elif name == "answer" and not wired.waiting and len(wired.beside) > answered:
            wired.answer(answered, "so it is. ", "and so.", seen_s=seen_s)
            answered += 1
        elif name == "ask":
            wired.question("And now?")
        elif name == "done" and running:
            wired.done()
            running = False
        elif name == "connection" and not lost:  # once: it takes half a second
            lost, running = True, False
            wired.anew(wired.go)
    narration, *answers = wired.times()
    assert narration and all(times == sorted(times) for times in (narration, *answers))


def test_a_new_talk_goes_on_with_the_times_of_the_list(wired: Wired) -> None:
    wired.narrate("I see a circle.", 0.3)
    expect(wired.page.locator("#told li.said")).to_be_visible()
    wired.full()
    _fresh(wired, 2)
    wired.narrate("I see a star.", 0.5)
    expect(wired.page.locator("#told li.said").nth(1)).to_be_visible()
    (times,) = wired.times()
    assert times[0] == 0.3 and times[-1] >= 3.5  # as long as a person had to read why


def test_who_interrupts_narration_wants_it_no_more(wired: Wired) -> None:
    box = wired.page.get_by_label("narrate")
    wired.narrate("I see a circle.", 1.0)
    wired.page.get_by_role("button", name="Interrupt").click()
    expect(wired.page.locator("#told li.question")).to_have_count(0)
    assert wired.interrupts == 1
    wired.done("interrupted")
    expect(box).not_to_be_checked()
    assert wired.asked == [NARRATION]
    box.check()
    wired.narrate("I see a star.", 2.0)
    expect(wired.page.locator("#told li.said").nth(1)).to_have_text("2.0 sI see a star.")
    assert wired.asked == [NARRATION] * 2


def test_who_interrupts_an_answer_beside_narration_cuts_only_that(wired: Wired) -> None:
    wired.narrate("I see a circle.", 1.0)
    wired.question("What do you see?")
    wired.answer(0, "a circle and", seen_s=1.5, reason="")
    (copy, _), *_ = wired.beside
    wired.page.get_by_role("button", name="Interrupt").click()
    wired.token("it moved.", 2.0)
    wired.say("done", stream=copy, reply=2, reason="interrupted", tokens=1, text="")
    expect(wired.page.locator("#told li.note")).to_have_text("Interrupted.")
    expect(wired.page.get_by_label("narrate")).to_be_checked()
    assert wired.cut == [copy, copy]  # what it said when it was copied, and the answer
    assert wired.lines() == ["I see a circle.", "What do you see?", "a circle and", "Interrupted.", "it moved."]
    assert wired.interrupts == 0 and wired.asked == [NARRATION]


def test_narration_begins_behind_an_answer_and_an_answer_that_another_question_ends_says_so(wired: Wired) -> None:
    box = wired.page.get_by_label("narrate")
    wired.narrate("I see a circle.", 1.0)
    box.uncheck()
    wired.done("interrupted")
    wired.question("What do you see?")
    wired.begin()
    wired.token("a red", 1.0)
    wired.question("Where is it?")
    wired.done("overtaken")
    wired.begin()
    wired.token("left.", 1.0)
    box.check()
    wired.done()
    wired.narrate("I see a star.", 2.0)
    expect(wired.page.locator("#told li.narration")).to_have_count(2)
    note = "The next question has ended this answer."
    assert wired.lines()[2:] == ["What do you see?", "a red", note, "Where is it?", "left.", "I see a star."]
    assert wired.asked == [NARRATION, "What do you see?", "Where is it?", NARRATION]


def test_narration_that_failed_does_not_claim_to_go_on(wired: Wired) -> None:
    wired.narrate("I see a circle.", 1.0)
    wired.done("error")
    expect(wired.page.get_by_label("narrate")).not_to_be_checked()
    assert wired.asked == [NARRATION]


def test_the_states_of_a_talk_are_shown_and_move(wired: Wired) -> None:
    page = wired.page
    wired.begin()
    wired.token("I see", 1.0)
    wired.state("speaking")
    assert page.evaluate("document.getAnimations().length") > 0
    wired.rest()
    wired.state("listening")
    assert page.evaluate("document.getAnimations().length") > 0
    wired.token(" a circle.", 1.0)
    wired.state("speaking")
    wired.state("listening")  # in time also where nobody says that it rests
    wired.question("What do you see?")
    wired.state("pending")
    wired.answer(0, "a", seen_s=1.0, reason="")
    wired.state("speaking")
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate("document.getAnimations().length") == 0
    page.emulate_media(reduced_motion="no-preference")
    wired.say("done", stream=wired.beside[0][0], reply=2, reason="stop", tokens=1, text="")
    wired.state("listening")
    wired.up = False
    wired.go()
    wired.state("gone")


def test_errors_go_when_what_they_are_about_works_again(wired: Wired) -> None:
    trouble = wired.page.locator("#trouble")
    wired.narrate("I see a circle.", 1.0)
    wired.say("error", code="media_damaged", message="frame 7: not a picture", seq=7, fatal=False)
    expect(trouble).to_have_text("frame 7: not a picture")
    wired.token("it moved.", 2.0)
    expect(trouble).to_be_hidden()
    wired.up = False
    wired.go()
    wired.state("gone")
    wired.question("What do you see?")
    expect(trouble).to_have_text("Not asked. There is no connection.")
    expect(wired.page.get_by_label("Question")).to_have_value("What do you see?")
    wired.up = True
    wired.state("listening")
    expect(trouble).to_be_hidden()
    for _ in range(2):
        wired.page.get_by_role("button", name="Put in a ring").click()
    expect(trouble).to_contain_text("four things")
    wired.page.get_by_role("button", name="Take out").click()
    expect(trouble).to_be_hidden()


def test_a_question_that_is_refused_says_so_in_its_place(wired: Wired) -> None:
    wired.page.get_by_label("narrate").uncheck()
    wired.question("What do you see?")
    expect(wired.page.locator("#told li.question")).to_have_count(1)
    wired.say("error", code="input", message="expected a picture first", ref="q2", fatal=False)
    expect(wired.page.locator("#told li.question")).to_contain_text("Not answered. expected a picture first")
    wired.state("listening")


def _fresh(wired: Wired, talks: int) -> None:
    """Fails where no new talk begins by itself."""
    for _ in range(FRESH_MS // 100):
        if len(wired.opened) == talks:
            break
        wired.page.clock.run_for(100)
    assert len(wired.opened) == talks
    wired.state("listening")


def test_little_memory_is_told_and_a_full_one_ends_in_a_new_talk(wired: Wired) -> None:
    line = wired.page.locator("#memory-line")
    wired.narrate("I see a circle.", 1.0)
    wired.appended(ROWS * 78 // 100)
    wired.page.clock.run_for(700)
    expect(line).to_be_hidden()
    wired.appended(ROWS * 82 // 100)
    expect(line).to_contain_text("80 % full")
    wired.say("evicted", row=0, rows=ROWS // 4, recalled=5, start_us=0, stop_us=500_000)
    expect(line).to_be_hidden()
    wired.appended(ROWS)
    wired.appended(ROWS * 11 // 10)
    expect(line).to_contain_text("80 % full")
    wired.question("What do you see?")
    for _ in range(3):  # a camera may run into it several times
        wired.full()
    wired.state("full")
    expect(wired.page.locator("#told li.note")).to_have_count(1)
    expect(wired.page.locator("#told li.note")).to_contain_text("memory is full")
    expect(wired.page.locator("#told li.question")).to_contain_text("Not answered.")
    wired.question("And now?")
    expect(wired.page.locator("#trouble")).to_contain_text("Not asked. The model's memory is full.")
    _fresh(wired, 2)
    expect(line).to_be_hidden()
    expect(wired.page.locator("#trouble")).to_be_hidden()
    assert wired.asked[-1] == NARRATION


def test_a_talk_that_ends_at_once_is_not_begun_again_and_again(wired: Wired) -> None:
    wired.say("error", code="model", message="the model failed", fatal=True)
    wired.say("closed", reason="error")
    wired.state("closed")
    expect(wired.page.locator("#trouble")).to_contain_text("Start anew")
    wired.page.clock.run_for(500)
    assert len(wired.opened) == 1
    wired.page.get_by_role("button", name="Start anew").click()
    wired.state("listening")
    expect(wired.page.locator("#trouble")).to_be_hidden()


@pytest.mark.parametrize("size", [(390, 844), (390, 664), (1100, 700)])
def test_picture_words_and_box_are_in_view_together(wired: Wired, size: tuple[int, int]) -> None:
    page = wired.page
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    try:
        wired.begin()
        for second in range(12):
            wired.token(LONG, float(second))
        wired.question("What do you see?")
        newest = page.locator("#told li").last
        expect(newest).to_have_text("What do you see?")
        for part in ("#stage", "#told", "#question", "#chips"):
            box = page.locator(part).bounding_box()
            assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= height, (part, box)
        expect(newest).to_be_in_viewport(ratio=1)
        assert page.evaluate("scrollY") == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.set_viewport_size({"width": 1100, "height": 800})


def test_three_things_are_there_at_the_start_and_move_until_they_are_touched(wired: Wired) -> None:
    page = wired.page
    move = page.get_by_role("button", name="Move", exact=True)
    expect(move).to_have_attribute("aria-pressed", "true")
    page.clock.run_for(4200)  # two and a half seconds in, one takes nearly one
    fields = [tuple(int(3 * part) for part in place) for place in places(page).values()]
    steps = [abs(x - a) + abs(y - b) for (x, y), (a, b) in zip(fields, [(0, 0), (1, 1), (2, 2)], strict=True)]
    assert sorted(steps) == [0, 0, 1]
    page.locator("#pond").press("N")
    expect(move).to_have_attribute("aria-pressed", "false")
    move.click()
    page.locator("#pond").press("ArrowRight")
    expect(move).to_have_attribute("aria-pressed", "false")
    before = places(page)
    page.clock.run_for(4000)
    assert places(page) == before


def test_who_wants_less_motion_moves_things_alone(wired: Wired) -> None:
    wired.page.emulate_media(reduced_motion="reduce")
    wired.page.reload()
    wired.state("listening")
    expect(wired.page.get_by_role("button", name="Move", exact=True)).to_have_attribute("aria-pressed", "false")
    wired.page.emulate_media(reduced_motion="no-preference")


def test_words_stand_out_from_what_is_behind_them(wired: Wired) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1, in light and in dark."""
    wired.begin()
    wired.token("I see a circle.", 1.0)
    wired.question("What do you see?")
    for scheme, name in itertools.product(
        ("light", "dark"), ("#knows", ".said time", ".question div", "#doing", "summary", "#chips button", ".main")
    ):
        wired.page.emulate_media(color_scheme=scheme)
        ratio = wired.page.locator(name).first.evaluate(_CONTRAST)
        assert ratio >= 4.5, (scheme, name, ratio)
    wired.page.emulate_media(color_scheme="light")


_CONTRAST = """(element) => {
  const shade = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const linear = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  let behind = element;
  while (/rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const shades = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(shade);
  return (Math.max(...shades) + 0.05) / (Math.min(...shades) + 0.05);
}"""


def test_an_answer_says_from_when_on_it_saw(wired: Wired) -> None:
    """What has left the model's window it may be wrong about."""
    wired.narrate("I see a circle.", 1.0)
    wired.question("What did you see at the start?")
    wired.answer(0, "a star.", seen_s=30.0, reason="")
    (copy, _), *_ = wired.beside
    wired.say("done", stream=copy, reply=2, reason="stop", tokens=1, text="", since_us=12_500_000)
    expect(wired.page.locator("#told li.note")).to_have_text("It no longer saw what came before 12.5 s.")
