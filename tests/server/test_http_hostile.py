"""Nothing that comes to the HTTP doors is a fault of the server: requests that are cut, spliced, wrongly coded, piled
up or nested without end are answered below 500 or not at all, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import pytest
from fake_engine import FakeEngine
from harness import get, run, serving, until
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.server import http
from penstock.server.routes import HTTP_DOORS
from test_metrics import told

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}, "uuid": "a"}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [PICTURE, SOUND, {"type": "text", "text": "What?"}]},
]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": MESSAGES,
        "tools": [TOOL],
        "stream_options": {"include_usage": True},
        "response_format": {"type": "text"},
        "logit_bias": {"5": 1},
        "stop": ["a"],
        "n": 2,
    },
    "/v1/completions": {"prompt": "x", "max_tokens": 3, "temperature": 1.0, "seed": 1},
    "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}], "metadata": {}},
}
# JSON that no place expects; some of it is none.
NASTY = [
    *("[" * 5_000 + "]" * 5_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "[" * 70_000),
    *('"\\ud800"', '"\\u0000"', '"' + "a" * 50_000 + '"', "1e400", "-" + "9" * 5_000, "NaN", "null", "{}", "[[]]", ""),
]
KINDS = ["application/json", "text/plain", "multipart/form-data; boundary=x", "multipart/form-data", "\xff", "a" * 99]
HEADERS = [
    *("X: " + "a" * 70_000, "\r\n".join(f"X{n}: {n}" for n in range(3_000)), "Content-Length: 5", "X\0: 1", "\xff: 1"),
    *("Transfer-Encoding: gzip, chunked", "Expect: 100-continue", "Upgrade: h2c\r\nConnection: Upgrade", "Host: "),
    *("Content-Encoding: gzip", "Authorization: Bearer \xe9", "Origin: null", "Connection: close", " folded"),
]
seldom = st.sampled_from([False] * 7 + [True])
HALF = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF'


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """A good body, half a form, or one with a nasty place."""
    body = {**BODIES.get(path, {}), "stream": draw(st.booleans())}
    if draw(seldom):
        return HALF
    text = json.dumps(body)
    if draw(st.booleans()):
        values = [match.span() for match in re.finditer(r'(?<=: )("[^"]*"|\d+|true|false|\[|\{)', text)]
        start, end = draw(st.sampled_from(values))
        text = text[:start] + draw(st.sampled_from(NASTY)) + text[end:]
    return text.encode()


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request."""
    path = draw(
        st.sampled_from([*HTTP_DOORS, *HTTP_DOORS, "/v1/models", "/v1/%ff%00", "/openapi.json", "/v1/stream", "*"])
    )
    method = draw(st.sampled_from(["POST"] * 12 + ["GET", "OPTIONS", "HEAD", "PUT", "A" * 50]))
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {draw(st.sampled_from(KINDS))}"]
    if draw(seldom):
        lines.append(draw(st.sampled_from(HEADERS)))
    body = draw(bodies(path))
    if draw(st.booleans()):
        lines.append("Transfer-Encoding: chunked")
        size = draw(st.integers(1, 1_000)) * (1 + len(body) // 1_000)
        pieces = [body[at : at + size] for at in range(0, len(body), size)] + [b""]
        wrong = draw(st.sampled_from([b""] * 9 + [b"0", b"g", b"-", b";" + b"a" * 100]))
        body = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), wrong, piece) for piece in pieces)
    else:
        lines.append(f"Content-Length: {len(body) + draw(st.sampled_from([0] * 12 + [1, -1]))}")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + body


def good(path: str) -> bytes:
    """A request that is answered, and then the end."""
    body = json.dumps(BODIES[path]).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


@st.composite
def shots(draw: st.DrawFn) -> tuple[list[bytes], bool]:
    """What one socket sends, in pieces, and whether it is then reset."""
    sent = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    if draw(seldom):
        sent = sent[: draw(st.integers(0, len(sent)))]
    if draw(seldom):
        at = draw(st.integers(0, len(sent)))
        sent = sent[:at] + draw(st.binary(max_size=8)) + sent[at:]
    at = draw(st.integers(0, len(sent)))
    return [sent[:at], sent[at:]], draw(seldom)


async def fire(url: str, parts: list[bytes], reset: bool) -> bytes:
    """What comes back, up to the end of the socket; nothing where it is reset."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.002)
        if reset:
            writer.transport.abort()
            return b""
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@given(st.lists(shots(), min_size=10, max_size=10))
@settings(deadline=None)
def test_whatever_comes_is_answered_below_500_and_leaves_nothing(volley: list[tuple[list[bytes], bool]]) -> None:
    engine = FakeEngine()
    engine.words = ["a ", "b"]
    written = _Log()

    async def main() -> None:
        async with serving(engine, max_message_bytes=100_000) as url:
            before = await told(url)
            answers = await asyncio.gather(*(fire(url, *shot) for shot in volley))
            for answer in answers:
                statuses = re.findall(rb"^HTTP/1.1 (\d+) |\nHTTP/1.1 (\d+) ", answer)
                assert all(int(one or other) < 500 for one, other in statuses), answer[:2_000]
                assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:200]
            assert b"200 OK" in await fire(url, [good("/v1/completions")], False)
            await until(lambda: not engine.open)
            names = ("penstock_tasks", "process_open_fds", "penstock_streams")
            while [before[name] for name in names] != [(now := await told(url))[name] for name in names]:
                pass
            assert not [name for name in now if name.startswith("penstock_connections{") and now[name]]
            assert (await get(url, "/health"))[1]["connections"] == 0

    with pytest.MonkeyPatch.context() as patch, written:
        patch.setattr(http, "REQUEST_SECONDS", 0.3)
        run(main)
    assert not written.faults


class _Log(logging.Handler):
    """Keeps what is written of faults."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.faults.append(self.format(record))

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
