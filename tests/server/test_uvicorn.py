"""Which parts of uvicorn the server uses although uvicorn promises nothing about them, and the test that needs each.

Public is what its documentation names: `uvicorn.Config` and its options, and `uvicorn.Server` with `serve` and
`should_exit`. A part that is not in this table may not be used. A part that a release no longer has fails here by name.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from penstock.server import app, http, routes, websocket
from penstock.server.config import ServerConfig

HERE = Path(__file__).parent
ASYNCIO = {
    "connection_made",
    "connection_lost",
    "data_received",
    "pause_writing",
    "resume_writing",
}  # of any asyncio.Protocol
PUBLIC = {"config", "should_exit", "serve"}

# Of each class: what it takes from uvicorn, by the test that fails without it.
SLOW = "test_socket.test_a_client_that_does_not_read_loses_only_its_own_connection"
UTF8 = "test_refusals.test_text_that_is_no_utf8_ends_its_connection"
JSON = "test_refusals.test_a_refusal_is_json_that_says_what_was_expected"
LOG = "test_refusals.test_a_refusal_is_at_most_one_line_in_the_log"
LATE = "test_sockets.test_a_request_that_does_not_end_is_ended"
MANY = "test_sockets.test_sockets_are_counted_and_the_longest_without_a_request_goes_first"
LONG = "test_http_doors.test_a_reply_may_take_longer_than_a_request"
MUCH = "test_http_doors.test_what_is_too_much_is_refused_in_the_shape_of_the_door"
TWICE = "test_http_doors.test_a_client_that_has_asked_twice_and_goes_leaves_nothing"
TLS = "test_tls.test_a_handshake_that_does_not_end_is_ended"
SIGNALS = "test_cli.test_a_second_signal_ends_the_server_at_once"
NEEDED = {
    # Cut a connection whose client does not read: an ASGI application cannot, its close frame waits for the client.
    **dict.fromkeys(
        [
            *("CuttableProtocol.handle_connect", "CuttableProtocol.scope", "CuttableProtocol.conn"),
            *("CuttableProtocol.disconnected", "CuttableProtocol.close_sent", "CuttableProtocol.close_timer"),
            *("CuttableProtocol.stop_keepalive", "CuttableProtocol.read_paused", "CuttableProtocol.transport"),
            "CuttableProtocol.writable",
        ],
        SLOW,
    ),
    # Text that is no UTF-8 is one warning; uvicorn logs an exception.
    "CuttableProtocol.send_receive_event_to_app": UTF8,
    "CuttableProtocol.curr_msg_data_type": UTF8,
    "CuttableProtocol.frames": UTF8,
    "CuttableProtocol.handle_parser_exception": UTF8,
    # A refused handshake is complete; uvicorn logs an error.
    "CuttableProtocol.send": LOG,
    "CuttableProtocol.initial_response": LOG,
    "CuttableProtocol.handshake_complete": LOG,
    # How long a request may take, and how many sockets may be open: uvicorn has options for neither.
    "BoundedProtocol.loop": LATE,
    "BoundedProtocol.transport": LATE,
    "BoundedProtocol.on_response_complete": LATE,
    "BoundedProtocol.handle_events": LONG,
    "BoundedProtocol.shutdown": MUCH,
    "BoundedProtocol.handle_websocket_upgrade": LATE,
    "BoundedProtocol.cycle": MANY,
    "BoundedProtocol.connections": MANY,
    # The end of a client that has sent a second request is noticed: uvicorn reads no more before the first is answered.
    "BoundedProtocol.conn": TWICE,
    "BoundedProtocol.flow": TWICE,
    "BoundedProtocol.send_400_response": JSON,
    # How long a TLS handshake may take: uvicorn has no option, so the sockets are opened here.
    "_Server.startup": TLS,
    "_Server.servers": TLS,
    "_Server.started": TLS,
    "_Server.server_state": TLS,
    # Signals drain; uvicorn's own handlers would close the sockets at once. The second one ends all.
    "_Server.capture_signals": SIGNALS,
    "_Server.force_exit": SIGNALS,
}


def classes() -> Iterator[tuple[type, ast.ClassDef]]:
    """The classes of the server that have one of uvicorn's as their base."""
    for module in (app, http, websocket):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ClassDef):
                kind = getattr(module, node.name)
                if any(base.__module__.startswith("uvicorn") for base in kind.__mro__):
                    yield kind, node


def used(node: ast.ClassDef) -> set[str]:
    """The names of a class that may be its base's: its methods, and the attributes that it reads or sets."""
    overridden = {part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
    named = {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self"
    }
    return overridden | named


def theirs(kind: type) -> set[str]:
    """What is uvicorn's in a class: the attributes of its base, and those that the base sets."""
    names: set[str] = set()
    for base in kind.__mro__[1:]:
        if base.__module__.startswith("uvicorn"):
            names |= {*vars(base), *re.findall(r"self\.(\w+)(?: =|:)", inspect.getsource(base))}
    return names


def test_no_part_is_used_that_no_test_needs() -> None:
    found = {
        f"{kind.__name__}.{name}"
        for kind, node in classes()
        for name in used(node) & theirs(kind)
        if name not in ASYNCIO | PUBLIC and not name.startswith("__")
    }
    assert found == set(NEEDED)


@pytest.mark.parametrize("test", sorted(set(NEEDED.values())))
def test_the_test_that_needs_a_part_is_there(test: str) -> None:
    file, _, name = test.partition(".")
    tree = ast.parse((HERE / f"{file}.py").read_text(encoding="utf-8"))
    assert name in {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}


def test_nothing_is_imported_that_is_marked_private() -> None:
    for path in (HERE.parents[1] / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("uvicorn"):
                assert not any(part.startswith("_") for part in (node.module or "").split(".")), path


def test_what_is_taken_of_its_configuration_is_there() -> None:
    """`_Server.startup` makes each socket's protocol as uvicorn does."""
    engine: Any = FakeEngine()
    config = app._uvicorn_config(routes.create_app(engine, ServerConfig()), ServerConfig())
    config.load()
    assert callable(config.http_protocol_class) and config.ssl is None and config.backlog > 0
