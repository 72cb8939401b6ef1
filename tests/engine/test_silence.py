"""A reply waits for media that is overdue only where it can, and says the same as if it had not waited."""

from __future__ import annotations

import pytest
from penstock.engine.command import Question, Yield
from penstock.engine.family import Loaded
from penstock.streams.event import Token
from penstock.streams.requests.request import SamplingParams

from .driven import Driven

PARAMS = SamplingParams(max_tokens=12, ignore_eos=True, temperature=0)


def speaking(loaded: Loaded, tokens: int, **request: object) -> Driven:
    """A stream whose reply has said so many tokens about two frames."""
    driven = Driven(loaded, **{"format": "live", **request})
    driven.pair(1)
    driven.accept(Question(2, "What?", PARAMS))
    driven.run(tokens)
    assert len(driven.of(Token)) == tokens
    return driven


def overdue(driven: Driven, is_overdue: bool = True) -> None:
    driven.scheduler.apply(Yield([driven.stream] if is_overdue else []))


@pytest.mark.parametrize("tokens", [1, 5])
def test_what_it_says_does_not_change(omni_loaded: Loaded, tokens: int) -> None:
    """Only when it says it: the frames go in behind the same token."""
    said = []
    for waits in (False, True):
        driven = speaking(omni_loaded, tokens)
        if waits:
            overdue(driven)
            driven.run()
            assert len(driven.of(Token)) == tokens, "it waits"
            driven.scheduler.check()
        driven.pair(3)
        driven.run(1)
        seen = driven.of(Token)[-1].seen
        assert seen is not None and seen.seq == 3
        assert len(driven.of(Token)) == tokens + 1, "the frames go in, and it goes on at once"
        overdue(driven, False)
        driven.run()
        said.append([(token.id, token.seen) for token in driven.of(Token)])
        assert len(said[-1]) == PARAMS.max_tokens
    assert said[0] == said[1]


@pytest.mark.parametrize("request_", [{"splice_tokens": 24}, {"format": "turns"}], ids=str)
def test_it_does_not_wait_where_media_could_not_go_in(omni_loaded: Loaded, request_: dict) -> None:
    """It has to say more before that, or it has to end."""
    driven = speaking(omni_loaded, 2, **request_)
    overdue(driven)
    driven.run()
    assert len(driven.of(Token)) == PARAMS.max_tokens


def test_the_first_token_does_not_wait(omni_loaded: Loaded) -> None:
    driven = Driven(omni_loaded, format="live")
    driven.pair(1)
    overdue(driven)
    driven.accept(Question(2, "What?", PARAMS))
    driven.run()
    assert len(driven.of(Token)) == 1
