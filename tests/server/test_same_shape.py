"""What a program calls over the network it calls in process, by the same names, with the same arguments."""

from __future__ import annotations

import inspect

import pytest
from penstock.actors.engine import Engine
from penstock.actors.reply import Reply
from penstock.actors.stream import Stream
from penstock.server.client import Connection
from penstock.server.client_stream import ClientReply, ClientStream

PUBLIC = {
    (Engine, Connection): ("stream", "generate", "generate_all", "close"),
    (Stream, ClientStream): ("append", "ask", "prompted", "interrupt", "end", "fork", "close", "__aiter__"),
    (Reply, ClientReply): ("text", "__aiter__"),
}
CALLS = [(here, there, name) for (here, there), names in PUBLIC.items() for name in names]
MORE = {"name"}  # over the network a stream may be named by its client


@pytest.mark.parametrize(("here", "there", "name"), CALLS, ids=lambda part: getattr(part, "__name__", part))
def test_a_call_of_the_client_is_one_of_the_engine(here: type, there: type, name: str) -> None:
    ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (here, there))
    assert [*ours] == [one for one in theirs if one not in MORE]
    for one, parameter in ours.items():
        assert parameter.kind == theirs[one].kind
        assert (parameter.default is parameter.empty) == (theirs[one].default is parameter.empty)
    asynchronous = [inspect.iscoroutinefunction(getattr(kind, name)) for kind in (here, there)]
    assert asynchronous[0] == asynchronous[1]
