"""What a program calls over the network it calls in process, by the same names, with the same arguments."""

from __future__ import annotations

import inspect

import pytest
from penstock.actors.engine import Engine
from penstock.actors.reply import Reply
from penstock.actors.stream import Stream
from penstock.server.client import Connection
from penstock.server.client_stream import ClientReply, ClientStream
from penstock.streams.event import ReplyDone

PAIRS = ((Engine, Connection), (Stream, ClientStream), (Reply, ClientReply))
# What is only there in process: how it is made and told things by its actors, and what the wire has no message for.
NOT_THERE = {
    Engine: {
        "warm_up",
        "check",
        "send",
        "check_alive",
        "fork",
        "freeze",
        "save",
        "end_stream",
        "closed",
        "park",
        "statistics",
        "until_failed",
    },
    Stream: {"told", "opened", "next_seq", "frozen", "transcript", "credit_bytes"},
    Reply: {"unread", "count", "put", "hold", "end", "token", "more"},
}
MORE = {"name"}  # over the network a stream may be named by its client
ITERATED = ("__aiter__", "__aenter__")


def public(kind: type) -> list[str]:
    names = [name for name, value in vars(kind).items() if inspect.isfunction(value) or isinstance(value, property)]
    return [name for name in names if (not name.startswith("_") or name in ITERATED) and name not in NOT_THERE[kind]]


def told(reply: Reply | ClientReply) -> set[str]:
    return {name for name in vars(reply) if not name.startswith("_")}


def test_a_reply_over_the_network_tells_what_one_in_process_tells() -> None:
    """`taken`, what somebody has read, and `rests` are for the actors."""
    theirs = told(ClientReply(1))
    assert theirs == told(Reply(1, 1, lambda: None)) - {"taken", "rests"} and "rest" in theirs


def test_the_rest_of_a_reply_comes_over_the_network() -> None:
    reply = ClientReply(1)
    reply.done(ReplyDone(1, "length", 0, "held"), None)
    assert reply.rest == "held" and reply.since_us is None


def test_from_when_on_a_reply_saw_comes_over_the_network() -> None:
    reply = ClientReply(1)
    reply.done(ReplyDone(1, "stop", 0, since_us=7), None)
    assert reply.since_us == 7


CALLS = [(here, there, name) for here, there in PAIRS for name in public(here)]


@pytest.mark.parametrize(("here", "there", "name"), CALLS, ids=lambda part: getattr(part, "__name__", part))
def test_a_call_of_the_client_is_one_of_the_engine(here: type, there: type, name: str) -> None:
    if isinstance(vars(here)[name], property):
        assert isinstance(vars(there)[name], property)
        return
    ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (here, there))
    assert [*ours] == [one for one in theirs if one not in MORE]
    for one, parameter in ours.items():
        assert parameter.kind == theirs[one].kind
        assert (parameter.default is parameter.empty) == (theirs[one].default is parameter.empty)
    asynchronous = [inspect.iscoroutinefunction(getattr(kind, name)) for kind in (here, there)]
    assert asynchronous[0] == asynchronous[1]
