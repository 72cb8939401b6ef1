"""The main demo, run as people run it: a film of Brook's world through a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from typing import Any

import pytest
from penstock.demos.brook.exam import events
from penstock.demos.show import Screen, Show, make_show

Lines = list[dict[str, Any]]


def run(*options: str) -> str:
    """What the demo prints."""
    command = [sys.executable, "-m", "penstock.demos.show", *options]
    own = {**os.environ, "PENSTOCK_STARTED": str(int(time.time()))}  # as the Makefile says it
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, env=own)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def show() -> Show:
    return make_show(4, 12.0, "mp4")


@pytest.fixture(scope="module")
def lines() -> Lines:
    """What one run told."""
    return [json.loads(line) for line in run("--json", "--seconds", "12", "--container", "mp4").splitlines()]


def test_brook_speaks_while_the_film_runs_and_is_marked(lines: Lines, show: Show) -> None:
    assert lines[0]["type"] == "started" and lines[0]["format"] == "live" and lines[0]["model"] == "brook"
    truth = [(line["time"], line["text"]) for line in lines if line["type"] == "truth"]
    assert truth == [(round(event.time, 2), event.sentence) for event in events(show.scene, True)]
    said = [line for line in lines if line["type"] == "said"]
    assert said and all(line["text"].endswith(".") for line in said)
    asked = [line["time"] for line in lines if line["type"] == "question"]
    assert len(asked) >= 3 and asked[0] < 0.5, "narration from the start, so that all that happens is told"
    assert all(1 < time < 12 for time in asked[1:]), "questions in mid-stream"
    summary = lines[-1]
    assert summary["type"] == "summary" and summary["answers"] >= 2
    assert 1 <= summary["right"] <= summary["answers"]
    assert summary["events"] / 2 < summary["told"] <= summary["events"]
    assert 0 < summary["first_right_after"] < 120  # seconds from the command on


def assert_fits(told: str) -> None:
    """The view for people: eighty columns, with the film, the questions, what Brook says and how right it was."""
    questions = [line for line in told.splitlines() if re.search(r" s \| \? (?!Tell me)", line)]
    summary = re.search(r"(\d) of (\d) answers right\. From `make demo` to the first right sentence: \d+ s\.", told)
    assert summary is not None and len(questions) == int(summary[2]) >= 1
    assert len(re.findall(r"\[right\]", told)) >= int(summary[1])
    assert max(map(len, told.splitlines())) <= 80
    assert "? Tell me what happens." in told and "Brook says" in told
    assert "events within a second of media" in told


def test_the_terminal_view_fits_eighty_columns(
    lines: Lines, show: Show, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run told, shown to people."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PENSTOCK_STARTED", "1000")
    screen = Screen(as_json=False)
    for told in lines:
        line = dict(told)
        match line.pop("type"):
            case "started":
                screen.head(line["model"], line["format"], show)
            case "truth":
                screen.truth(**line)
            case "question":
                screen.asked(**line)
            case "said":
                screen.said(**line)
            case "summary":
                first = 1000 + line.pop("first_right_after")
                screen.summary(**line, first=first)
    assert_fits(capsys.readouterr().out)


@pytest.mark.slow
def test_the_demo_shows_the_terminal_view() -> None:
    assert_fits(run("--seconds", "8", "--container", "webm"))
