"""`penstock ask` as tests run it: in this process, its lines read. In: words of the command line. Out: events, or the
one line that says why not.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from penstock.server.cli import main

SECONDS = 4.0
COMMAND = [sys.executable, "-m", "penstock.server.cli"]
ANNOUNCED = "penstock: serving on "


def events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The events of `penstock ask ... --json`, which has to end well."""
    code = main(["ask", *arguments, "--json"])
    told = capsys.readouterr()
    assert (code, told.err) == (0, "")
    return events(told.out)


def stops(told: list[dict[str, Any]], modality: str) -> list[int]:
    """Up to where in media time rows of this modality were appended."""
    return [event["stop_us"] for event in told if event["type"] == "appended" and event["modality"] == modality]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    code = main(list(arguments))
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert told.err.startswith("penstock: error: ") and told.err.count("\n") == 1
    return told.err.removeprefix("penstock: error: ").strip()
