"""`penstock trace` shows the way of a frame: each message of the chain, in order, as one JSON object a line."""

from __future__ import annotations

import json

import pytest
from penstock.server.cli import main

CHAIN = [
    ("socket", "in", "VideoFrame"),
    ("decode", "data", "Take"),
    ("encode", "data", "Segments"),
    ("schedule", "control", "Announce"),
    ("encode", "control", "Grant"),
    ("schedule", "control", "Spans"),
    ("generate", "control", "Plan"),
    ("schedule", "control", "Result"),
    ("client", "control", "Tell"),
    ("socket", "out", "Token"),
]


def test_a_frame_goes_from_socket_to_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(line) == {"ms", "mailbox", "lane", "type", "stream", "seq", "summary"} for line in lines)
    times = [line["ms"] for line in lines]
    assert times == sorted(times) and times[0] == 0
    kinds = [(line["mailbox"], line["lane"], line["type"]) for line in lines]
    place = kinds.index(CHAIN[0]) + 1
    place = kinds.index(CHAIN[0], place)  # The second frame completes the pair.
    way = []
    for step in CHAIN:
        place = next(number for number in range(place, len(lines)) if kinds[number] == step and _of_pair(lines[number]))
        way.append(lines[place])
    assert "21168 bytes" in way[1]["summary"]
    assert "(2, 84, 84, 3) uint8" in way[2]["summary"]
    assert "9 rows" in way[3]["summary"] and way[5]["summary"] == "9 rows"
    assert "9 of media" in way[6]["summary"] and "Appended 9 rows, Token 0" in way[8]["summary"]
    assert lines[-1]["type"] == "ReplyDone"


def _of_pair(line: dict[str, object]) -> bool:
    """Of input 2, the second frame, or of no input in particular."""
    return line["seq"] in (2, None)


def test_an_option_that_is_wrong_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--tokens", "0"]) == 2
    assert capsys.readouterr().err == "penstock: error: max_tokens: expected at least 1, got 0\n"
