"""The process in which one engine runs cases: `python child.py on_vllm MODEL DTYPE DEVICE`, or with `-m`.

In: one case a line on stdin, as a JSON object. Out: one answer a line on stdout; whatever else the engine prints goes
to stderr. The first line out says that the engine is loaded. All engines get the same media, drawn here from the
case's seed. Imports the standard library and numpy only, so that any Python with an engine can run it.

A case is `{"run": "requests", "count", "media", "side", "frames", "tokens", "seed"}` with the answer `{"times", "ids"}`
(per request: seconds from the start to each token, and the tokens), or
`{"run": "session", "frames", "side", "tokens", "seed"}` with the answer `{"frame", "question", "ids"}` (seconds). An
answer `{"error"}` says what has failed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from typing import Any

import numpy as np

LINE = "one two three four five six seven eight nine. "
QUESTION = "What has changed since the picture before this one?"


def picture(seed: int, place: int, side: int) -> np.ndarray:
    """A picture `(side, side, 3)` uint8 of coarse squares. Each seed and place gives another one."""
    draw = np.random.default_rng((seed, place))
    block = max(1, side // 14)
    squares = draw.integers(0, 256, (-(-side // block), -(-side // block), 3), dtype=np.uint8)
    return np.ascontiguousarray(squares.repeat(block, 0).repeat(block, 1)[:side, :side])


def prompts(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompts of a case: text, and perhaps an image or the frames of a video, or text of one line again and again;
    no two are equal."""
    made = []
    for number in range(case["count"]):
        prompt: dict[str, Any] = {"text": f"Story {case['seed']} number {number}: tell at length what happens."}
        place = number * 1000
        if case["media"] == "repeated":
            prompt["text"] = f"{case['seed']} {number}: {LINE * 6}Say that again."
        elif case["media"] == "image":
            prompt["image"] = picture(case["seed"], place, case["side"])
        elif case["media"] == "video":
            frames = [picture(case["seed"], place + frame, case["side"]) for frame in range(case["frames"])]
            prompt["video"] = np.stack(frames)
        made.append(prompt)
    return made


def pictures(case: dict[str, Any]) -> list[np.ndarray]:
    """Those of a session: `frames` before the one that is timed, that one, and one that comes with the question."""
    return [picture(case["seed"], place, case["side"]) for place in range(case["frames"] + 2)]


async def run(engine: Any, case: dict[str, Any]) -> dict[str, Any]:
    """The answer of an engine to a case."""
    if case["run"] == "session":
        return await engine.session(pictures(case), QUESTION, case["tokens"])
    return await engine.requests(prompts(case), case["tokens"])


async def _serve(adapter: Any, settings: list[str], out: Any) -> None:
    def say(answer: dict[str, Any]) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    try:
        engine = await adapter.load(*settings)
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        raise
    say({"loaded": engine.about})
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                say(await run(engine, json.loads(line)))
            except Exception as error:  # the others still run, and whoever reads the figures sees this one
                say({"error": f"{type(error).__name__}: {error}"})
    finally:
        await engine.close()


def main(name: str, settings: list[str]) -> None:
    """Serve the cases on stdin until it ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    adapter = importlib.import_module(f".{name}", __package__) if __package__ else importlib.import_module(name)
    asyncio.run(_serve(adapter, settings, out))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
