"""The life of a reply: who may cut it, when it rests, what it waits for, and what a question is not asked over."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from penstock.engine.command import Interrupt, MediaInput, Question, Refuse, Resolved, Spans, TextInput
from penstock.engine.family import Loaded
from penstock.engine.span import Span, Turn
from penstock.streams.event import Appended, Dropped, Error, ReplyDone, ReplyStarted, Resting, Token
from penstock.streams.requests.request import SamplingParams

from .driven import Driven

LONG = SamplingParams(max_tokens=40, ignore_eos=True)
HELD = SamplingParams(max_tokens=40, hold=True)


def silent(loaded: Loaded, every: int = 1) -> Loaded:
    """A model to which one id in `every` means the end."""
    family = copy.copy(loaded.family)
    family.stop_ids = frozenset(range(0, family.data.vocabulary, every))
    return loaded._replace(family=family)


def ends(driven: Driven) -> list[tuple[int, str, int]]:
    return [(event.reply, event.reason, event.tokens) for event in driven.of(ReplyDone)]


# Interrupts.


def test_an_interrupt_before_a_reply_has_begun_gives_an_empty_one(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded)
    driven.accept(MediaInput(1), Question(2, "Who?", LONG), Question(3, "Where?", LONG))
    driven.scheduler.apply(Interrupt(driven.stream, 2, at=-1))
    driven.scheduler.apply(Resolved(driven.stream, 1))
    driven.run()
    assert ends(driven) == [(1, "interrupted", 0), (2, "length", 40)]
    assert [event.seq for event in driven.of(ReplyStarted)] == [2, 3]


def test_an_interrupt_cuts_no_later_question(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded)
    driven.accept(Question(1, "Who?", SamplingParams(max_tokens=3)), Question(2, "Where?", LONG))
    driven.run(20)
    assert driven.of(ReplyStarted)[-1].seq == 2  # what the client did not know when it sent this:
    driven.scheduler.apply(Interrupt(driven.stream, 1, 1, 1))
    driven.run()
    assert ends(driven) == [(1, "length", 3), (2, "length", 40)]


def test_of_a_reply_that_its_client_has_not_seen_nothing_stays(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded)
    driven.accept(Question(1, "Who?", LONG))
    driven.run(10)
    driven.scheduler.apply(Interrupt(driven.stream, 1, at=-1))
    driven.run()
    assert ends(driven) == [(1, "interrupted", 0)]


def test_an_interrupt_while_nothing_runs_or_waits_does_nothing(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded)
    driven.pair(1)
    driven.scheduler.apply(Interrupt(driven.stream, 1, at=-1))
    driven.accept(Question(2, "Who?", LONG))
    driven.run()
    assert ends(driven) == [(1, "length", 40)]


# Turns of a user who is heard.


def turn(driven: Driven, number: int) -> None:
    """Two frames, then the place where the user's turn `number` ends, as input `number`."""
    driven.accept(MediaInput(number))
    driven.pair_of(number, number)
    end = Span(number, 9, "audio", np.zeros(0, np.int64), (0, 0, 0), 0, 0, None, number, turn=Turn(number, 7))
    driven.scheduler.apply(Spans(driven.stream, [end]))
    driven.scheduler.apply(Resolved(driven.stream, number))


def test_a_turn_asks_unless_its_user_has_gone_on_to_speak(omni_loaded: Loaded) -> None:
    """Turn 1 runs, and 2 waits for its end. Turn 3 begins before 2 is answered: 1 is cut, 2 asks nothing."""
    driven = Driven(omni_loaded, params=LONG)
    turn(driven, 1)
    turn(driven, 2)
    driven.run(10)
    driven.scheduler.apply(Interrupt(driven.stream, 3, 1, 4, turn=3))
    turn(driven, 3)
    driven.run()
    assert ends(driven) == [(1, "interrupted", 5), (2, "length", 40)]
    assert [event.seq for event in driven.of(ReplyStarted)] == [1, 3]


def test_speech_cuts_no_reply_to_itself(omni_loaded: Loaded) -> None:
    """Its start is told so late that its own reply runs, or one to a later question."""
    driven = Driven(omni_loaded, params=LONG)
    turn(driven, 1)
    driven.accept(Question(2, "Who?", LONG))
    driven.run(10)
    driven.scheduler.apply(Interrupt(driven.stream, 1, at=-1, turn=1))
    driven.run(50)
    driven.scheduler.apply(Interrupt(driven.stream, 1, at=-1, turn=1))
    driven.run()
    assert ends(driven) == [(1, "length", 40), (2, "length", 40)]


def test_a_turn_of_which_nothing_came_is_told(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded)
    driven.accept(MediaInput(1))
    end = Span(1, 0, "audio", np.zeros(0, np.int64), (0, 0, 0), 0, 0, None, 9, turn=Turn(1, 7))
    driven.scheduler.apply(Spans(driven.stream, [end]))
    driven.scheduler.apply(Resolved(driven.stream, 1))
    driven.run()
    (error,) = driven.of(Error)
    assert (error.code, error.seq) == ("input", 1) and not driven.of(ReplyStarted)


# Rests.


def test_a_reply_ends_by_itself_unless_it_is_held(omni_loaded: Loaded) -> None:
    driven = Driven(silent(omni_loaded), format="live")
    driven.accept(Question(1, "Who?", SamplingParams()))
    driven.run()
    assert (ends(driven), driven.of(Resting)) == ([(1, "stop", 0)], [])
    assert not driven.of(ReplyStarted)[0].held


def test_a_held_reply_says_once_that_it_rests(omni_loaded: Loaded) -> None:
    driven = Driven(silent(omni_loaded), format="live")
    driven.accept(Question(1, "Who?", HELD))
    driven.run()
    for seq in (2, 3):
        driven.pair(seq)
        driven.run()
    assert driven.of(ReplyStarted)[0].held
    assert [(event.reply, event.tokens) for event in driven.of(Resting)] == [(1, 0)]
    assert len(driven.of(Appended)) == 2 and not driven.of(ReplyDone)


def test_it_says_so_again_when_it_has_said_more(omni_loaded: Loaded) -> None:
    driven = Driven(silent(omni_loaded, 2), format="live")
    driven.accept(Question(1, "Who?", HELD))
    for seq in range(2, 12):
        driven.run()
        driven.pair(seq)
    driven.run()
    told = [event.tokens for event in driven.of(Resting)]
    assert told == sorted(set(told)) and len(told) > 1
    assert told[-1] == len(driven.of(Token))


# What waits.


@pytest.mark.parametrize("least", [1, 7])
def test_a_speaking_reply_says_enough_between_two_pieces(omni_loaded: Loaded, least: int) -> None:
    driven = Driven(omni_loaded, format="live", splice_tokens=least)
    driven.accept(Question(1, "Who?", LONG))
    for seq in range(2, 6):
        driven.pair(seq)
    driven.run()
    spoken = [event for event in driven.events if isinstance(event, Token | Appended)]
    runs, count = [], 0
    for event in spoken:
        if isinstance(event, Appended):
            runs.append(count)
            count = 0
        count += isinstance(event, Token)
    assert len(runs) == 4 and all(run >= least for run in runs)
    assert runs[0] <= least + 1  # and no longer than it must


def test_a_reply_that_rests_takes_media_at_once(omni_loaded: Loaded) -> None:
    driven = Driven(silent(omni_loaded), format="live", splice_tokens=30)
    driven.accept(Question(1, "Who?", HELD))
    driven.run()
    driven.pair(2)
    driven.run()
    assert len(driven.of(Appended)) == 1


def test_a_question_that_overtakes_another_one_says_so(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded, format="live")
    driven.accept(Question(1, "Who?", LONG))
    driven.run(5)
    driven.accept(Question(2, "Where?", SamplingParams(max_tokens=2, ignore_eos=True)))
    driven.run()
    assert [(reply, reason) for reply, reason, _ in ends(driven)] == [(1, "overtaken"), (2, "length")]


# Losses.


def failed(driven: Driven, seq: int) -> None:
    driven.accept(MediaInput(seq))
    driven.scheduler.apply(Refuse(driven.stream, Error("media_damaged", "no picture", seq)))
    driven.scheduler.apply(Resolved(driven.stream, seq))


def test_a_question_is_not_asked_over_media_that_came_to_nothing(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded)
    failed(driven, 1)
    driven.accept(Question(2, "What do you see?", LONG))
    driven.run()
    (error,) = driven.of(Error)
    assert (error.code, error.seq, error.fatal) == ("media_damaged", 2, False)
    assert "input 1 before this question came to nothing: no picture" in error.message
    driven.accept(Question(3, "What do you see?", LONG))  # its client knows now
    driven.run()
    assert [event.seq for event in driven.of(ReplyStarted)] == [3]


def test_its_client_may_ask_all_the_same(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded)
    failed(driven, 1)
    driven.accept(Question(2, "What do you see?", LONG, despite=True), Question(3, "And?", LONG))
    driven.run()
    assert [event.seq for event in driven.of(ReplyStarted)] == [2, 3]


def test_one_lost_input_among_others_stops_no_question(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded)
    failed(driven, 1)
    driven.pair(2)
    driven.accept(Question(3, "What do you see?", LONG))
    driven.run()
    assert [event.seq for event in driven.of(ReplyStarted)] == [3]


# The end of the cache.


@pytest.mark.parametrize("held", [False, True])
def test_a_full_stream_tells_a_camera_once_and_ends_its_reply(omni_loaded: Loaded, held: bool) -> None:
    driven = Driven(silent(omni_loaded) if held else omni_loaded, rows=160, format="live")
    driven.accept(Question(1, "Who?", SamplingParams(max_tokens=300, hold=held, ignore_eos=not held)))
    driven.run(3)
    for seq in range(2, 30):
        driven.pair(seq)
        driven.run(3)
    driven.run()
    errors, dropped = driven.of(Error), driven.of(Dropped)
    assert [event.code for event in errors] == ["context_overflow"] and "the stream goes on" in errors[0].message
    assert {event.reason for event in dropped} == {"full"}
    assert len(dropped) + len(errors) + len(driven.of(Appended)) == 28
    assert [reason for _, reason, _ in ends(driven)] == ["length"]


def filled(loaded: Loaded) -> Driven:
    """A stream whose cache has no place for another pair of frames, and whose client knows."""
    driven = Driven(loaded, rows=200)
    driven.size = (224, 224)
    for seq in range(1, 29):
        driven.pair(seq)
        driven.run()
        if driven.of(Error):
            return driven
    raise AssertionError("expected a full stream")


def flushing(driven: Driven, seq: int) -> None:
    """A question that lets out a pair of frames of its own."""
    driven.accept(Question(seq, "Who?", SamplingParams(max_tokens=2, ignore_eos=True), done=False))
    driven.pair_of(seq, seq + 1000)
    driven.scheduler.apply(Resolved(driven.stream, seq))
    driven.run()


def test_a_question_goes_into_a_full_stream_without_the_media_that_it_lets_out(omni_loaded: Loaded) -> None:
    driven = filled(omni_loaded)
    flushing(driven, 50)
    assert len(driven.of(Error)) == 1
    assert [event.seq for event in driven.of(ReplyStarted)] == [50]


def test_a_camera_before_a_full_stream_stops_one_question_only(omni_loaded: Loaded) -> None:
    """The one behind the first picture that did not fit: then its client knows."""
    driven = Driven(omni_loaded, rows=192)
    driven.size = (224, 224)
    driven.accept(TextInput(1, "door " * 161))
    for seq in (2, 4, 6):
        driven.pair(seq)
        driven.accept(Question(seq + 1, "Who?", SamplingParams(max_tokens=1)))
        driven.run()
    assert [(event.code, event.seq) for event in driven.of(Error)][:2] == [("context_overflow", seq) for seq in (2, 3)]
    assert [event.seq for event in driven.of(ReplyStarted)] == [5]
    assert {event.seq for event in driven.of(Dropped)} == {4, 6}


def test_a_question_is_told_of_the_first_media_that_does_not_fit(omni_loaded: Loaded) -> None:
    """Also where it let that media out itself: then it is not asked."""
    driven = filled(omni_loaded)
    fits = sum(isinstance(event, Appended) for event in driven.events)
    other = Driven(omni_loaded, rows=200)
    other.size = driven.size
    for seq in range(1, 1 + fits):
        other.pair(seq)
    other.run()
    flushing(other, 50)
    assert [(event.code, event.seq) for event in other.of(Error)] == [("context_overflow", 50)]
    assert not other.of(ReplyStarted)


def test_media_that_a_question_lets_out_counts_as_come(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded)
    failed(driven, 1)
    flushing(driven, 2)
    assert driven.of(Error) == []
    assert [event.seq for event in driven.of(ReplyStarted)] == [2]


def test_an_image_that_a_full_stream_drops_is_told_at_the_question(omni_loaded: Loaded) -> None:
    """A question is most likely about it; a further one is asked."""
    driven = Driven(omni_loaded, rows=192)
    driven.accept(TextInput(1, "door " * 161))
    for seq in (2, 4):
        driven.image(seq)
        driven.accept(Question(seq + 1, "What is on it?", SamplingParams(max_tokens=1)))
        driven.run()
    assert [event.seq for event in driven.of(Dropped)] == [4]
    assert [event.seq for event in driven.of(Error)] == [2, 3, 5]
    driven.accept(Question(6, "Who?", SamplingParams(max_tokens=1)))
    driven.run()
    assert [event.seq for event in driven.of(ReplyStarted)] == [6]
