"""A question that waits no longer: what it overtakes, and what stays in its order. And words that may not wait."""

from __future__ import annotations

import pytest
from penstock.codecs.frame import Pixels
from penstock.engine.command import (
    Hurry,
    MediaEnd,
    MediaInput,
    PromptInput,
    Question,
    Refuse,
    Resolved,
    Spans,
    TextInput,
)
from penstock.engine.family import Loaded
from penstock.streams.event import Error, ReplyDone, ReplyStarted
from penstock.streams.requests.request import SamplingParams
from penstock.streams.timeline import Timeline

from tests.reference.media import frames

from .driven import Driven

SHORT = SamplingParams(max_tokens=4)


@pytest.fixture
def driven(omni_loaded: Loaded) -> Driven:
    return Driven(omni_loaded)


def test_it_does_not_overtake_the_prompt(driven: Driven) -> None:
    driven.accept(PromptInput(1, SHORT), MediaInput(2))
    driven.accept(Question(3, "Who?", SHORT))
    driven.scheduler.apply(Hurry(driven.stream, 3))
    driven.run()
    assert [input.seq for input in driven.scheduler.streams[driven.stream].inputs] == [1, 3, 2]
    assert not driven.of(ReplyStarted)


def test_what_it_flushes_comes_behind_the_media_that_it_overtakes(driven: Driven, omni_loaded: Loaded) -> None:
    """While a reply runs the question waits in front of media that is late; its own odd frame does not."""
    driven.accept(Question(1, "What do you see?", SamplingParams(max_tokens=6)))
    driven.run(2)
    driven.accept(MediaInput(2), Question(3, "And now?", SHORT, done=False))
    driven.scheduler.apply(Hurry(driven.stream, 3))
    timeline = Timeline(omni_loaded.family.spec)
    late = timeline.feed(2, [Pixels(pixels, at * 500_000) for at, pixels in enumerate(frames(1, 3))]).segments
    flushed = timeline.flush(3).segments
    first, second = driven.encode([(driven.stream, segment) for segment in (*flushed, *late)])
    driven.scheduler.apply(Spans(driven.stream, [first]))
    driven.run()  # the reply ends, the question is asked and answered
    assert [event.seq for event in driven.of(ReplyStarted)] == [1, 3]
    driven.scheduler.apply(Spans(driven.stream, [second]))
    for seq in (2, 3):
        driven.scheduler.apply(Resolved(driven.stream, seq))
    driven.run()
    assert [run.seen.seq for run in driven.scheduler.transcript(driven.stream) if run.seen] == [2, 3]


def test_words_before_it_stay_before_it(driven: Driven, omni_loaded: Loaded) -> None:
    driven.accept(MediaInput(1), TextInput(2, "Say it in French."), Question(3, "Who?", SHORT))
    driven.scheduler.apply(Hurry(driven.stream, 3))
    driven.run()
    assert [event.seq for event in driven.of(ReplyStarted)] == [3]
    ids = [id for run in driven.scheduler.transcript(driven.stream) for id in run.ids]
    assert "Say it in French.Who?" in omni_loaded.family.tokenizer.decode(ids)
    assert [input.seq for input in driven.scheduler.streams[driven.stream].inputs] == [1]


def test_an_earlier_question_and_its_media_stay_before_it(driven: Driven) -> None:
    driven.accept(MediaInput(1), Question(2, "Who?", SHORT))
    driven.accept(MediaInput(3), MediaEnd(4), Question(5, "Where?", SHORT))
    driven.scheduler.apply(Hurry(driven.stream, 5))
    driven.run()
    assert not driven.of(ReplyStarted)
    assert [input.seq for input in driven.scheduler.streams[driven.stream].inputs] == [1, 2, 5, 3, 4]


def test_a_question_that_was_refused_is_not_asked(driven: Driven) -> None:
    driven.accept(Question(1, "Who?", SHORT, done=False))
    driven.scheduler.apply(Refuse(driven.stream, Error("media_damaged", "broken", 1)))
    driven.scheduler.apply(Resolved(driven.stream, 1))
    driven.accept(Question(2, "Who?", SHORT))
    driven.run()
    assert [event.seq for event in driven.of(ReplyStarted)] == [2]
    assert [event.reason for event in driven.of(ReplyDone)] == ["length"]


def test_words_that_wait_are_bounded(driven: Driven) -> None:
    """In number and in characters; what is too much is told, and the others go in."""
    driven.accept(Question(1, "What do you see?", SHORT))
    driven.run(1)
    driven.accept(*(TextInput(seq, "a") for seq in range(2, 1028)), Question(1028, "b", SHORT))
    driven.run()
    assert [(event.code, event.seq) for event in driven.of(Error)] == [("input", seq) for seq in (1026, 1027, 1028)]
    assert "text: expected at most 1024 inputs of 1048576 characters to wait, got more" in driven.of(Error)[0].message
    assert not driven.scheduler.streams[driven.stream].inputs
    assert [event.seq for event in driven.of(ReplyStarted)] == [1]
