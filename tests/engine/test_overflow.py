"""More than a stream can hold: refused with both numbers; a running reply ends with "length"; the stream goes on."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.family import Loaded
from penstock.streams.event import Error

from .acts import Client
from .rig import Rig, Session

ROWS = 96


def with_positions(loaded: Loaded, positions: int) -> Loaded:
    """The same model, but with fewer positions."""
    family = copy.copy(loaded.family)
    family.max_positions = positions
    return loaded._replace(family=family)


def rows(session: Session) -> int:
    return session.rig.core.scheduler.streams[session.stream].rows


@pytest.mark.parametrize("format", ["turns", "live"])
def test_too_many_rows(text_qwen: tuple[Any, Any], text_loaded: Loaded, format: str) -> None:
    rig = Rig(text_loaded, kv_tokens=ROWS, page_tokens=16)
    session = rig.open(format=format)
    session.ask("What do you see?", max_tokens=4)
    rig.run()
    before, story = rows(session), session.story.copy()
    words = " door" * 100
    session.text(words)
    (error,) = session.of(Error)
    held, most, got = (int(number) for number in re.findall(r"\d+", error.message)[:3])
    assert (error.code, error.seq, error.fatal) == ("context_overflow", 2, False)
    assert held == ROWS and got >= 100 and most < ROWS - before
    session.story = story
    assert rows(session) == before
    session.ask("Who?", max_tokens=4)
    rig.run()
    assert session.ends() == [("length", 4)] * 2
    assert session.check(*text_qwen) == 8


def test_too_much_media_while_a_reply_runs(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    """Spans that do not fit are left out; the reply goes on without them."""
    rig = Rig(omni_loaded, kv_tokens=ROWS, page_tokens=4)
    client = Client(rig.open(format="live"))
    session = client.session
    client.do("ask", max_tokens=12)
    while not session.of(Error):
        rig.step(1)
        story = session.story.copy()
        client.do("image", 1)
    session.story = story
    rig.run()
    assert session.ends() == [("length", 12)]
    assert session.check(*omni) == 12


@given(page_tokens=st.sampled_from([4, 16]), words=st.integers(0, 12), positions=st.booleans())
def test_a_reply_that_fills_the_stream(
    text_qwen: tuple[Any, Any], text_loaded: Loaded, page_tokens: int, words: int, positions: bool
) -> None:
    """It takes every row there is but those of its closing, and those of no other stream."""
    loaded = with_positions(text_loaded, ROWS) if positions else text_loaded
    rig = Rig(loaded, kv_tokens=4 * ROWS if positions else ROWS, page_tokens=page_tokens)
    session = rig.open(format="turns")
    session.ask("What" + " door" * words, max_tokens=4 * ROWS)
    rig.run()
    ((reason, told),) = session.ends()
    assert reason == "length" and told > 10
    assert rows(session) == ROWS
    assert session.check(*text_qwen) == told
    session.ask("And?", max_tokens=2)
    (error,) = session.of(Error)
    assert error.code == "context_overflow" and str(ROWS) in error.message
    other = rig.open(format="turns")
    other.ask("What?", max_tokens=2)
    rig.run()
    assert other.ends() == [("length", 2)]
    assert other.check(*text_qwen) == 2


def test_too_many_positions(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    """A video runs through positions faster than through rows: 25 for each second."""
    rig = Rig(with_positions(omni_loaded, 115), kv_tokens=2048)
    client = Client(rig.open(format="turns"))
    session = client.session
    while not session.of(Error):
        story = session.story.copy()
        client.do("pair")
    (error,) = session.of(Error)
    limit, most, got = (int(number) for number in re.findall(r"\d+", error.message)[:3])
    assert error.code == "context_overflow" and limit == 115 and most < 115 <= got + 25
    session.story = story
    client.do("ask", max_tokens=3)
    rig.run()
    assert session.ends() == [("length", 3)]
    assert session.check(*omni) == 3


@pytest.mark.parametrize("kind", ["ask", "text"])
def test_without_words(text_qwen: tuple[Any, Any], text_loaded: Loaded, kind: str) -> None:
    rig = Rig(text_loaded)
    session = rig.open(format="turns")
    story = session.story.copy()
    session.ask("") if kind == "ask" else session.text("")
    session.story = story
    (error,) = session.of(Error)
    assert error.code == "input" and "expected words" in error.message
    session.ask("What?", max_tokens=2)
    rig.run()
    assert session.check(*text_qwen) == 2
