"""The log as JSON: a machine can read every line, it names the stream that it is about, and holds no client's words."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from fake_engine import FakeEngine
from harness import raw_client, run, serving
from penstock.errors import PenstockError
from penstock.server.client import connect
from penstock.server.logs import JsonFormatter
from penstock.streams.requests.request import Request, SamplingParams


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the server logs, as `--log json` writes it."""
    text, log = io.StringIO(), logging.getLogger("penstock")
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonFormatter())
    before = log.level
    log.setLevel("DEBUG")
    log.addHandler(handler)
    yield text
    log.removeHandler(handler)
    log.setLevel(before)


def test_lines_name_streams_and_hold_no_words(written: io.StringIO) -> None:
    engine = FakeEngine(tokens=3)

    async def main() -> None:
        async with serving(engine) as url:
            async with connect(url) as connection, await connection.stream(Request(system="secret")) as stream:
                await (await stream.ask("secret")).text()
                with pytest.raises(PenstockError):
                    await stream.ask("secret", SamplingParams(stop=("secret",) * 100))
            async with raw_client(url) as raw:
                await raw.socket.send('{"secret')
                await raw.open("secret")

    run(main)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert "secret" not in written.getvalue()
    begun = {line["stream"] for line in lines if line["message"].startswith("stream start")}
    ended = [line for line in lines if line["message"].startswith("stream end")]
    assert len(begun) == 2 and {line["stream"] for line in ended} == begun
    assert (ended[0]["replies"], ended[0]["tokens"], ended[0]["reason"]) == (1, 3, "closed")
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


def test_a_fault_keeps_its_stack_on_one_line(written: io.StringIO) -> None:
    try:
        raise RuntimeError("out of\ncheese")
    except RuntimeError:
        logging.getLogger("penstock.server").exception("a %s", "fault", extra={"stream": 3, "odd": object})
    (line,) = written.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["message"], told["stream"]) == ("error", "a fault", 3)
    assert "RuntimeError: out of\ncheese" in told["error"]
