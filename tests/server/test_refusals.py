"""What is refused over HTTP says why, in JSON; what is refused is one line in the log and nothing more."""

from __future__ import annotations

import json
import logging

import pytest
from fake_engine import FakeEngine
from harness import frame, handshake, raw_client, run, serving, shot
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.errors import InputError
from penstock.server.access import host_allowed, key_of
from penstock.server.client import connect
from penstock.server.config import ServerConfig
from penstock.server.errors import ConfigError, ConnectionLostError


def request(line: str, *headers: str) -> bytes:
    return "".join(f"{each}\r\n" for each in (line, *headers, "Connection: close", "")).encode()


LOCAL = "Host: localhost"
REFUSED = {
    "a WebSocket elsewhere": (
        handshake("/stream"),
        404,
        "expected a WebSocket on /v1/stream, /v1/realtime, got one on /stream",
    ),
    "a WebSocket on health": (handshake("/health"), 404, "/v1/stream"),
    "a path with a line feed": (handshake("/a%0Ab"), 404, "got one on /a\\nb"),
    "a path that is none": (handshake("*"), 404, "/v1/stream"),
    "a foreign page": (handshake("/v1/stream", "Origin: http://evil.example"), 403, "foreign origin"),
    "no key for a WebSocket": (handshake().replace(b"Sec-WebSocket-Key", b"X-Key"), 400, "Sec-WebSocket-Key"),
    "a method without WebSockets": (handshake(method="POST"), 405, "POST"),
    "no handshake": (request("GET /v1/stream HTTP/1.1", LOCAL), 426, "expected a WebSocket handshake on /v1/stream"),
    "a post to the WebSocket": (request("POST /v1/stream HTTP/1.1", LOCAL), 426, "POST"),
    "no such page": (request("GET /nowhere HTTP/1.1", LOCAL), 404, "got /nowhere"),
    "a wrong method": (request("DELETE /health HTTP/1.1", LOCAL), 405, "got DELETE"),
    "a foreign host": (request("GET /health HTTP/1.1", "Host: evil.example"), 403, "foreign host"),
    "no HTTP": (b"\x16\x03\x01 hello\r\n\r\n", 400, "expected an HTTP request"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_json_that_says_what_was_expected(case: str) -> None:
    sent, status, why = REFUSED[case]

    async def main() -> None:
        async with serving(FakeEngine()) as url:
            head, _, body = (await shot(url, sent)).partition(b"\r\n\r\n")
            assert int(head.split()[1]) == status
            assert b"\r\ncontent-type: application/json" in head.lower()
            told = json.loads(body)
            assert told["status"] == status and why in told["error"]
            assert (b"\r\nupgrade: websocket" in head.lower()) == (status == 426)

    run(main)


def test_a_client_is_told_the_words_of_the_refusal() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url:
            with pytest.raises(
                ConnectionLostError, match="refused with 404 expected a WebSocket on /v1/stream, /v1/realtime, got one"
            ):
                await connect(f"{url}/v2")

    run(main)


# ---- The log ----
bad_frames = st.one_of(
    st.builds(frame, st.integers(0, 15), st.binary(max_size=60), st.booleans()),
    st.sampled_from([frame(1, b"\xff"), frame(1, b"\xc3", False) + frame(0, b"\x28"), frame(8, b"\x03")]),
    st.binary(max_size=40),
)
bad_starts = st.one_of(
    st.just(handshake()),
    st.sampled_from([sent for sent, _, _ in REFUSED.values()]),
    st.tuples(st.integers(0, 150), st.binary(min_size=1, max_size=3)).map(
        lambda change: handshake()[: change[0]] + change[1] + handshake()[change[0] + len(change[1]) :]
    ),
)
shots = st.tuples(bad_starts, st.lists(bad_frames, max_size=4), st.booleans())


@settings(max_examples=6, deadline=None)
@given(st.lists(shots, min_size=20, max_size=20))
def test_a_refusal_is_at_most_one_line_in_the_log(hostile: list[tuple[bytes, list[bytes], bool]]) -> None:
    lines: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lines.append  # type: ignore[method-assign]

    async def main() -> None:
        async with serving(FakeEngine()) as url, raw_client(url) as bystander:
            for start, frames, abort in hostile:
                await shot(url, start, *frames, abort=abort, seconds=0.02)
            await bystander.send(type="ping", ref="still there")
            assert (await bystander.receive())["ref"] == "still there"

    logging.getLogger().addHandler(handler)
    try:
        run(main)
    finally:
        logging.getLogger().removeHandler(handler)
    told = [(line.levelname, line.getMessage()) for line in lines]
    assert all(name == "WARNING" and "\n" not in text for name, text in told), told
    assert not any(line.exc_info for line in lines), told
    assert len(lines) <= len(hostile), told


def test_text_that_is_no_utf8_ends_its_connection() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url, raw_client(url) as bystander:
            answer = await shot(url, handshake(), frame(1, b"\xc3\x28"))
            assert answer.endswith(b"\x03\xeftext message: expected UTF-8")  # 1007
            await bystander.send(type="ping")
            assert (await bystander.receive())["type"] == "pong"

    run(main)


# ---- Hosts and keys ----
@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (None, True),
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("127.9.9.9:1", True),
        ("[::1]:8000", True),
        ("friend.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("localhost@evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_a_local_server_answers_for_its_own_names(host: str | None, allowed: bool) -> None:
    headers = {} if host is None else {"host": host}
    assert host_allowed(headers, ServerConfig(allow_origins=("https://friend.example",))) is allowed
    assert host_allowed(headers, ServerConfig(host="0.0.0.0", api_key="k"))


@settings(max_examples=50)
@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.isprintable).map(str.strip).filter(bool)
)
def test_any_key_that_can_be_printed_lets_in_and_no_other_does(key: str) -> None:
    from urllib.parse import quote

    config = ServerConfig(api_key=key)
    config.check()
    utf8 = key.encode().decode("latin-1")  # The bytes of a header as the server is given them.
    headers = [utf8] + ([key] if max(key) < "\u0100" else [])
    for shown in headers:
        assert key_of({"authorization": f"Bearer {shown}"}, [], config)
        assert not key_of({"authorization": f"Bearer {shown}x"}, [], config)
        shorter = shown[:-1].strip()  # of two bytes in UTF-8 the first may be the key in Latin-1
        found = key_of({"authorization": f"Bearer {shorter}"}, [], config)
        assert (found is not None) is (shorter in headers)
    assert key_of({}, ["penstock.v1", f"penstock.key.{quote(key, safe='')}"], config)
    assert not key_of({}, ["penstock.v1", f"penstock.key.{quote(key, safe='')}x"], config)


@pytest.mark.parametrize("key", ["schlüssel", "ключ", "鍵 🔑", "a b%20c"])
def test_a_client_shows_any_key(key: str) -> None:
    async def main() -> None:
        async with serving(FakeEngine(), api_key=key) as url:
            async with connect(url, key) as connection:
                assert connection.welcome.model == "fake"
            with pytest.raises(ConnectionLostError, match="401"):
                await connect(url, key + "x")

    run(main)


@pytest.mark.parametrize("around", [" ", "\n", "\r\n", "\t", "\x0b", "\xa0"])
def test_white_space_around_a_key_is_no_part_of_it(around: str) -> None:
    """As where it comes from a file or a variable."""

    async def main() -> None:
        async with serving(FakeEngine(), api_key=f"{around}k y{around}") as url:
            for shown in ("k y", f"{around}k y{around}"):
                async with connect(url, shown) as connection:
                    assert connection.welcome.model == "fake"

    run(main)


@pytest.mark.parametrize("key", ["", " ", "two\nlines", "\x00", "\udcff"])
def test_a_key_that_nobody_can_show_is_refused(key: str) -> None:
    with pytest.raises(ConfigError):
        ServerConfig(api_key=key).check()
    with pytest.raises(InputError):
        connect("http://127.0.0.1:1", key)
