"""An interrupt keeps the KV: what is fed afterwards is what stood behind the cut, the closing ids and the new input.

Rows are counted, and their ids read, by a hook on the model's embedding call.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.command import Accept, Interrupt, Question
from penstock.engine.family import Loaded
from penstock.streams.event import Appended, ReplyDone, Token
from penstock.streams.requests.request import SamplingParams

from .acts import Act, Client, acts, perform
from .rig import Rig

REPLY = 40


@contextmanager
def embedded(rig: Rig) -> Iterator[list[int]]:
    """The ids that go through the embedding."""
    ids: list[int] = []
    hook = rig.core.language.embed.register_forward_hook(lambda module, inputs, output: ids.extend(inputs[0].tolist()))
    try:
        yield ids
    finally:
        hook.remove()


@given(
    during=acts("pair", "image", "sound", "text", most=5), at=st.none() | st.integers(0, REPLY - 1), late=st.booleans()
)
def test_no_other_row_is_fed(
    omni: tuple[Any, Any], omni_loaded: Loaded, during: list[Act], at: int | None, late: bool
) -> None:
    rig = Rig(omni_loaded, kv_tokens=2048)
    client = Client(rig.open(format="live"))
    session = client.session
    client.do("ask", max_tokens=REPLY)
    perform(rig, client, during)
    rig.step(2)
    told = len(session.story.places)
    assert session.story.replying and told
    at = None if at is None else min(at, told - 1)
    fed = rig.core.scheduler.streams[session.stream].fed
    with embedded(rig) as ids:
        session.interrupt(at)
        if late:
            rig.step(2)
        client.do("ask", 1, max_tokens=1)
        rig.step(1)
    sequence = session.expected(*omni)
    keeps_all = at is None or at == told - 1
    cut = sequence.marks[session.story.tokens()[told - 1 if at is None else at]][1]
    kept = fed if keeps_all else min(cut, fed)
    assert ids == sequence.ids[kept : len(session.transcript()[0])].tolist()
    rig.run()
    session.check(*omni)


def test_counted_by_hand(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    """Ten tokens, a picture behind the fourth and a pair behind the eighth, cut behind the sixth."""
    rig = Rig(omni_loaded, kv_tokens=2048)
    client = Client(rig.open(format="live"))
    session = client.session
    client.do("ask", max_tokens=REPLY)
    rig.step(4)
    client.do("image")
    rig.step(4)
    client.do("pair")
    rig.step(2)
    picture, pair = session.of(Appended)
    with embedded(rig) as ids:
        session.interrupt(5)
        rig.run()
    family = rig.core.loaded.family
    before, after = family.block_ids["video"]
    start = session.transcript()[0].index(family.block_ids["video"][0][0], picture.row + picture.rows + 1)
    assert len(ids) == len(before) + pair.rows + len(after) + len(family.turn_ids["assistant_end"])
    assert ids == session.transcript()[0][start:]
    assert session.ends() == [("interrupted", 6)]
    again = session.of(Appended)[2]
    assert (again.seq, again.rows) == (pair.seq, pair.rows) and again.row < pair.row


def test_a_silent_reply_is_cut_for_the_closing_ids(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    """What was spliced in behind the last token stays where it is, however much it has become."""
    family = copy.copy(omni_loaded.family)
    family.stop_ids = frozenset(range(family.data.vocabulary)) - {617}  # one word, which it has to say first
    rig = Rig(omni_loaded._replace(family=family), kv_tokens=2048)
    client = Client(rig.open(format="live"))
    session = client.session
    client.do("ask", max_tokens=REPLY, min_tokens=1)
    silent = 0
    while silent < 3:
        told = len(session.ids())
        client.do("pair")
        rig.run()
        silent = silent + 1 if len(session.ids()) == told else 0
    assert session.story.replying and told
    with embedded(rig) as ids:
        session.interrupt()
        rig.run()
    assert ids == family.turn_ids["assistant_end"]
    session.check_places(session.expected(*omni))


@given(during=acts("pair", "image", "sound", "text", most=6), at=st.integers(0, REPLY - 1), again=st.booleans())
def test_what_is_kept_no_longer_is_not_laid_again(
    omni: tuple[Any, Any], omni_loaded: Loaded, during: list[Act], at: int, again: bool
) -> None:
    """Embeddings of a running reply count too: where they had to go, it ends behind them instead of behind `at`."""
    rig = Rig(omni_loaded, kv_tokens=2048, span_bytes=0, encoder_cache_bytes=0)
    client = Client(rig.open(format="live"))
    session = client.session
    client.do("ask", max_tokens=REPLY)
    with patch.object(rig.core.language.spans, "put", wraps=rig.core.language.spans.put) as put:
        perform(rig, client, during)
        rig.step(2)
    assert len(rig.core.scheduler.kept.named()) == put.call_count - len(session.of(Appended))
    told = len(session.story.places)
    rig.core.scheduler.apply(Interrupt(session.stream, at=min(at, told - 1)))
    rig.deliver()
    if again:
        client.do("ask", 1, max_tokens=4)
    rig.run()
    session.check(*omni)
    assert session.ends()[0][1] >= min(at + 1, told)


@pytest.mark.parametrize("at", [None, 0, 3, 7])
def test_without_splices_only_the_closing_ids_are_fed(
    text_qwen: tuple[Any, Any], text_loaded: Loaded, at: int | None
) -> None:
    rig = Rig(text_loaded, kv_tokens=1024)
    session = rig.open(format="turns")
    session.ask("What do you see?", max_tokens=REPLY)
    rig.step(9)
    newest = session.of(Token)[-1].id
    with embedded(rig) as ids:
        session.interrupt(at)
        rig.run()
    end = rig.core.loaded.family.turn_ids["assistant_end"]
    assert ids == ([newest, *end] if at is None else end), "the newest token has not been fed before"
    session.check(*text_qwen)


def test_a_stop_string_that_is_found_late(text_qwen: tuple[Any, Any], text_loaded: Loaded) -> None:
    """The string lies across tokens:

    those that hold a part of it are cut away, and so is what was spliced behind them.
    """
    model, tokenizer = text_qwen
    plain = Rig(text_loaded).open(format="live")
    plain.ask("What do you see?", max_tokens=12)
    plain.rig.run()
    words = [tokenizer.decode([id]) for id in plain.ids()]
    stop = (words[6] + words[7])[1:-1]
    assert "".join(words).find(stop) == len("".join(words[:6])) + 1, "the fixture's reply holds it once"

    rig = Rig(text_loaded)
    session = rig.open(format="live")
    session.ask("What do you see?", max_tokens=12, stop=(stop,))
    with embedded(rig) as ids:
        rig.run()
    assert session.ends() == [("stop", 6)]
    assert session.ids()[:6] == plain.ids()[:6]
    done = session.of(ReplyDone)[0]
    texts = [event.text for event in session.of(Token)]
    assert "".join(texts) + done.text == "".join(texts[: done.tokens]) + done.text == "".join(words[:6]) + words[6][:1]
    assert ids[-2:] == rig.core.loaded.family.turn_ids["assistant_end"]
    session.ask("Who came in?", max_tokens=5)
    rig.run()
    session.check(model, tokenizer)


def test_a_splice_behind_a_late_stop_string_is_laid_again(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    def reply(stop: tuple[str, ...]) -> Client:
        client = Client(Rig(omni_loaded).open(format="live"))
        client.do("ask", max_tokens=12, stop=stop)
        client.session.rig.step(7)
        client.do("pair")
        client.session.rig.run()
        return client

    tokenizer = omni[1].tokenizer
    plain = reply(()).session
    words = [tokenizer.decode([id]) for id in plain.ids()]
    stop = words[5][-1:] + words[6] + words[7]
    session = reply((stop,)).session
    assert session.ends() == [("stop", 5)], "the part of it in the sixth token takes that token away"
    assert session.check(*omni) == 5


@pytest.mark.parametrize("first", [(), ("pair",), ("pair", "image", "sound")])
def test_in_format_interrupt_a_question_cuts(
    omni: tuple[Any, Any], omni_loaded: Loaded, first: tuple[str, ...]
) -> None:
    """Also where media that came before it waits for the end of the reply."""
    rig = Rig(omni_loaded)
    client = Client(rig.open(format="interrupt"))
    client.do("ask", max_tokens=REPLY)
    rig.step(5)
    for kind in first:
        client.do(kind, 3)
    client.do("ask", 1, max_tokens=4)
    assert client.session.ends() == [("interrupted", 5)]
    rig.run()
    assert client.session.ends() == [("interrupted", 5), ("length", 4)]
    assert client.session.check(*omni) == 9


def test_an_interrupt_without_a_reply_changes_nothing(text_qwen: tuple[Any, Any], text_loaded: Loaded) -> None:
    rig = Rig(text_loaded)
    session = rig.open(format="turns")
    session.interrupt()
    session.ask("What do you see?", max_tokens=4)
    rig.run()
    session.interrupt()
    assert session.ends() == [("length", 4)]
    session.check(*text_qwen)


def test_before_the_first_token(text_qwen: tuple[Any, Any], text_loaded: Loaded) -> None:
    rig = Rig(text_loaded, append_rows=4, step_rows=4)
    session = rig.open(format="turns")
    session.ask("What do you see?", max_tokens=4)
    rig.step(2)
    session.interrupt()
    session.ask("Who came in?", max_tokens=4)
    rig.run()
    assert session.ends() == [("interrupted", 0), ("length", 4)]
    assert session.check(*text_qwen) == 4


@pytest.mark.parametrize(("reply", "kept"), [(1, 2), (7, 5)])
def test_what_was_taken_of_another_reply_does_not_cut_this_one(omni_loaded: Loaded, reply: int, kept: int) -> None:
    """A question carries the token its client had reached, and of which reply."""
    rig = Rig(omni_loaded)
    session = rig.open(format="interrupt")
    session.ask("What do you see?", max_tokens=30)
    rig.step(5)
    question = Question(9, "Who came in?", SamplingParams(max_tokens=2), at=1, reply=reply)
    rig.core.scheduler.apply(Accept(session.stream, question))
    rig.deliver()
    assert session.ends() == [("interrupted", kept)]


def test_a_stream_that_is_closed_in_mid_reply_gives_all_back_and_tells_no_more(omni_loaded: Loaded) -> None:
    rig = Rig(omni_loaded, kv_tokens=2048)
    client = Client(rig.open(format="live"))
    client.do("ask", max_tokens=REPLY)
    rig.step(5)
    assert client.session.ids() and not client.session.ends()
    client.session.close()
    assert rig.core.scheduler.events() == [] and rig.core.scheduler.plan() is None
    rig.core.scheduler.check()
    assert rig.core.scheduler.pool.free == rig.core.scheduler.config.pages
