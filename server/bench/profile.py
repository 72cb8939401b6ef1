"""Where the time of a server goes, by part: a sampling profile of all its threads, taken from outside by py-spy.

In: a process. Out: seconds by part, and the profile itself, which speedscope.app shows as a flame graph. A sample
belongs to the part of its innermost known frame; one in which a thread waits is left out. It knows how our folders and
threads are called, and not what is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

RATE = 100  # samples a second

STEP, TOWERS, MEDIA, WORDS = "model step", "towers", "media: decode and prepare", "words to ids and back"
SCHEDULER, ACTORS, SOCKETS, LOOP, OTHER = "scheduler", "actors", "WebSocket", "event loop in C", "other"
PARTS = (STEP, TOWERS, MEDIA, WORDS, SCHEDULER, ACTORS, SOCKETS, LOOP, OTHER)
HOST = (WORDS, SCHEDULER, ACTORS, SOCKETS, LOOP)  # what a step costs beside the model

_LOOP_THREAD, _MODEL_THREAD = "MainThread", "penstock-model"
_THREADS = {"penstock-decode": MEDIA, "penstock-encode": MEDIA, "penstock-words": WORDS}
# By a part of the path; the first that fits.
_FILES = (
    ("/penstock/server/bench/", OTHER),
    ("/penstock/engine/words/", WORDS),
    ("/penstock/engine/", SCHEDULER),
    ("/penstock/actors/", ACTORS),
    ("/penstock/streams/", MEDIA),
    ("/penstock/codecs/", MEDIA),
    ("/penstock/server/", SOCKETS),
    ("/uvicorn/", SOCKETS),
    ("/websockets/", SOCKETS),
    ("/starlette/", SOCKETS),
)
# Innermost frames in which nothing is done: a thread waits for work or a result, the event loop for either.
_WAITING = {("_worker", "thread.py"), ("wait", "threading.py"), ("run", "runners.py"), ("select", "selectors.py")}


class Profile(msgspec.Struct, frozen=True):
    """Seconds by part. loop: in the event loop's thread, while it ran Python or waited for a core to do so. others: in
    all other threads. file: the profile as JSON for speedscope.app."""

    loop: dict[str, float]
    others: dict[str, float]
    file: bytes

    def parts(self, loop_s: float) -> dict[str, float]:
        """Seconds by part, where the event loop's thread took `loop_s` seconds of a processor: what it waited for a
        core is taken out, and what it did beside Python is in C."""
        python = sum(self.loop.values())
        running = min(1.0, loop_s / python) if python else 1.0
        found = {part: self.loop.get(part, 0.0) * running + self.others.get(part, 0.0) for part in PARTS}
        return found | {LOOP: max(0.0, loop_s - python)}


async def profiled(pid: int, seconds: float) -> Profile | str:
    """What the process does in `seconds`; or, where py-spy cannot say, why."""
    here = Path(sys.executable).parent
    program = shutil.which("py-spy", path=os.pathsep.join((str(here), os.environ.get("PATH", ""))))
    if program is None:
        return "no profile: expected py-spy, which pip install 'penstock[bench]' brings, got none"
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        file = Path(folder) / "profile.json"
        words = ["record", "--pid", str(pid), "--rate", str(RATE), "--duration", str(max(1, round(seconds)))]
        words += ["--threads", "--full-filenames", "--format", "speedscope", "--output", str(file)]
        process = await asyncio.create_subprocess_exec(program, *words, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
        _, told = await process.communicate()
        if process.returncode or not file.exists():
            lines = told.decode(errors="replace").split("\n")
            return f"no profile: py-spy ended with code {process.returncode}: {' '.join(lines).strip()}"
        return read(file.read_bytes())


def read(file: bytes) -> Profile:
    """The parts of a profile that py-spy has written for speedscope."""
    profile: dict[str, Any] = json.loads(file)
    frames = [(frame["name"].rpartition(".")[2], frame["file"] or "") for frame in profile["shared"]["frames"]]
    loop: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for thread in profile["profiles"]:
        parts = loop if _LOOP_THREAD in thread["name"] else others
        for sample, weight in zip(thread["samples"], thread["weights"], strict=True):
            part = _part(thread["name"], [frames[place] for place in reversed(sample)])
            if part is not None:
                parts[part] += weight
    return Profile(dict(loop), dict(others), file)


def _part(thread: str, stack: list[tuple[str, str]]) -> str | None:
    """The part of a sample, `(function, file)` from the innermost frame on; None where its thread waits."""
    if not stack or (stack[0][0], stack[0][1].rpartition("/")[2]) in _WAITING:
        return None
    if _MODEL_THREAD in thread:
        return STEP if any(file.endswith("/engine/runner/language.py") for _, file in stack) else TOWERS
    for name, part in _THREADS.items():
        if name in thread:
            return part
    return next((part for _, file in stack for mark, part in _FILES if mark in file), OTHER)
