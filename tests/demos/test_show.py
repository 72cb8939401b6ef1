"""The main demo, run as people run it: a film of Brook's world through a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

from penstock.demos.brook.exam import events
from penstock.demos.show import make_show


def show(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.demos.show", *options]
    own = {**os.environ, "PENSTOCK_STARTED": str(int(time.time()))}  # as the Makefile says it
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=own)


def test_brook_speaks_while_the_film_runs_and_is_marked() -> None:
    ran = show("--json", "--seconds", "12", "--container", "mp4")
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert lines[0]["type"] == "started" and lines[0]["format"] == "live" and lines[0]["model"] == "brook"
    scene = make_show(4, 12.0, "mp4").scene
    truth = [(line["time"], line["text"]) for line in lines if line["type"] == "truth"]
    assert truth == [(round(event.time, 2), event.sentence) for event in events(scene, True)]
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


def test_the_terminal_view_fits_eighty_columns() -> None:
    ran = show("--seconds", "8", "--container", "webm")
    assert ran.returncode == 0, ran.stderr
    questions = [line for line in ran.stdout.splitlines() if re.search(r" s \| \? (?!Tell me)", line)]
    summary = re.search(
        r"(\d) of (\d) answers right\. From `make demo` to the first right sentence: \d+ s\.", ran.stdout
    )
    assert summary is not None and len(questions) == int(summary[2]) >= 1
    assert len(re.findall(r"\[right\]", ran.stdout)) >= int(summary[1])
    assert max(map(len, ran.stdout.splitlines())) <= 80
    assert "? Tell me what happens." in ran.stdout and "Brook says" in ran.stdout
    assert "events within a second of media" in ran.stdout
