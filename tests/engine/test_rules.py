"""The table of a reply's life is whole, and nothing else changes a life."""

from __future__ import annotations

import ast
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import pytest
from penstock.engine.conversation.rules import (
    MEDIA,
    READER,
    RULES,
    WHERE,
    Does,
    Life,
    MediaLife,
    Reader,
    What,
    Where,
    after,
)
from penstock.engine.conversation.state import StreamState
from penstock.engine.plan import Changes
from penstock.errors import PenstockError
from penstock.streams.requests.request import Request

from tests.house.source import modules, tree

RUNNING = (Life.SPEAKING, Life.PAUSED, Life.RESTING)
# What clients and media may do at any moment.
ANY_TIME = (What.MEDIA, What.MISSED, What.TEXT, What.QUESTION, What.INTERRUPT, What.END)


@pytest.mark.parametrize(("life", "what"), [*product(RUNNING, ANY_TIME), (Life.QUEUED, What.INTERRUPT)], ids=str)
def test_what_may_come_at_any_moment_has_a_rule(life: Life, what: What) -> None:
    assert (life, what) in RULES


@pytest.mark.parametrize(
    ("life", "what"),
    [
        (Life.RESTING, What.TOKEN),  # no token is drawn while it rests
        (Life.PAUSED, What.TOKEN),
        (Life.DONE, What.MEDIA),
        (Life.REFUSED, What.TURN),
        (Life.QUEUED, What.STOP),
    ],
)
def test_what_cannot_happen_is_an_error_that_names_both(life: Life, what: What) -> None:
    with pytest.raises(PenstockError, match=rf"that is {life}: expected .*; got: {what}"):
        after(life, what)


def test_every_life_but_a_refused_question_s_comes_to_its_end() -> None:
    ends = {Life.DONE, Life.REFUSED}
    for _ in Life:
        ends |= {life for (life, _), rule in RULES.items() if rule.life in ends}
    assert ends == set(Life)
    assert not [life for life, _ in RULES if life is Life.DONE]


def test_a_reply_ends_with_a_reason_and_only_then() -> None:
    ending = {Does.STOP, Does.LENGTH, Does.INTERRUPTED, Does.OVERTAKEN, Does.FAILED}
    for rule in RULES.values():
        assert (rule.life is Life.DONE) == (rule.does in ending)
    assert {does.reason for does in ending} == {"stop", "length", "interrupted", "overtaken", "error"}


def test_the_end_of_the_media_is_never_taken_back() -> None:
    assert {after for (media, _), after in MEDIA.items() if media is MediaLife.OVER} == {MediaLife.OVER}


@pytest.mark.parametrize("what", [What.PARKED, What.READ, What.FORKED], ids=str)
@pytest.mark.parametrize("reader", Reader, ids=str)
def test_a_client_may_stop_to_read_at_any_moment(reader: Reader, what: What) -> None:
    assert (reader, what) in READER


def test_pages_in_host_memory_are_neither_saved_nor_taken() -> None:
    possible = {what for where, what in WHERE if where is Where.HOST}
    assert possible == {What.FED}
    assert {WHERE[Where.HOST, what] for what in possible} == {Where.CACHE}


def test_a_stream_is_written_by_its_conversation_alone() -> None:
    """The scheduler and the actors call methods of `StreamState`; they assign nothing to it."""
    table = SimpleNamespace(pool=SimpleNamespace(page_tokens=1))
    fields = {name for name in vars(StreamState(1, [0], Request(), cast(Any, None), cast(Any, table), Changes()))}
    for path in modules("engine/scheduling") + modules("actors"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in fields:
                owner = node.value
                assert isinstance(owner, ast.Name) and owner.id == "self", f"{path}:{node.lineno}"


def test_a_life_changes_in_two_places_only() -> None:
    """`Conversation._happens` and `Waiting.happens`, both by the table; a stream's media in `happens_to_media`."""
    writers = []
    for path in modules("engine"):
        for function in ast.walk(tree(path)):
            if isinstance(function, ast.FunctionDef) and function.name != "__init__":
                for node in ast.walk(function):
                    targets = node.targets if isinstance(node, ast.Assign) else []
                    names = {target.attr for target in targets if isinstance(target, ast.Attribute)}
                    writers += [(path.stem, function.name)] * len(names & {"life", "media"})
    assert sorted(writers) == [
        ("conversation", "_happens"),
        ("state", "happens_to_media"),
        ("waiting", "happens"),
    ]
