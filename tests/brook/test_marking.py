"""Sentences are cut from tokens, and ticked off against what happens."""

from __future__ import annotations

from penstock import Token
from penstock.demos.brook.marking import Listener, Marker, Sentence
from penstock.demos.brook.world import Change, Scene, Sound, Thing
from penstock.streams.event import Seen

CIRCLE = Thing(0, "circle", "red", "large", 0.15, 0.5, 0.5, 4)
SCENE = Scene(
    0,
    8.0,
    (CIRCLE,),
    (Change("turned", 2.3, 2.3, CIRCLE, CIRCLE._replace(colour="blue")),),
    (Sound("beep", "high", 4.6, 4.8, 0), Sound("beep", "high", 5.4, 5.6, 1)),
)


def token(text: str, reply: int = 1, stop_us: int | None = None) -> Token:
    seen = None if stop_us is None else Seen(1, "video", 0, stop_us)
    return Token(reply, 0, 0, text, seen)


def test_a_sentence_knows_what_had_been_seen_when_it_began():
    listener = Listener()
    heard = [listener.hear(event) for event in (token("a", 1, 1_000_000), token(" beep", 1, 2_000_000), token("."))]
    assert heard == [None, None, Sentence("a beep.", 1, 1.0)]


def test_words_of_a_reply_that_was_left_are_forgotten():
    listener = Listener()
    listener.hear(token("a", 1))
    assert listener.hear(token("red.", 2)) == Sentence("red.", 2, 0.0)


def test_told_in_the_next_unit_is_in_time_and_later_is_not():
    for seen, in_time in ((2.5, True), (4.0, True), (4.6, False)):
        marker = Marker(SCENE)
        assert marker.mark(Sentence("the red circle turned blue.", 1, seen)) is not None
        assert marker.finish(3.0)[0][1] is in_time


def test_nothing_is_told_before_it_happens_or_twice():
    marker = Marker(SCENE)
    assert marker.mark(Sentence("the red circle turned blue.", 1, 2.0)) is None
    assert marker.mark(Sentence("a high beep.", 1, 5.0)) is not None
    assert marker.mark(Sentence("a high beep.", 1, 5.0)) is None
    assert marker.mark(Sentence("a high beep.", 1, 6.0)) is not None
    assert len(marker.invented) == 2
    assert [told for _, told in marker.finish(8.0)] == [True, True, False]
