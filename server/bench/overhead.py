"""`penstock bench overhead`: what many live streams cost beside the model, and where the time of the server goes.

Each stream is a WebSocket of its own that shows frames of a video; one in four speaks all the time. The server runs in
a process of its own, which measures itself for some seconds (peers/watched.py) and then is profiled from outside for as
long (profile.py): a profiler slows down what it looks at, so these are two times. The scheduler is also measured alone,
with 256 streams that all speak (planning.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from ...streams.requests.request import Request
from ..client import connect
from ..errors import EngineFailedError
from .arithmetic import percentile
from .camera import PacedCamera, jpegs
from .figures import Figure, per_round, progress, setting, show
from .peer import Peer, started
from .peers.child import QUESTION
from .peers.watched import Watched
from .planning import Planning, planning
from .presets import model_folder
from .profile import HOST, PARTS, STEP, Profile, profiled
from .served import greedy

_LEAD_S = 2.0  # at most, that do not count
_SPEAKING = 4  # one in so many streams speaks
_NO_END = 100_000  # tokens of a reply that is spoken: it is cut at the end of the trial
_ALONE, _STEPS = 256, 100  # streams of the scheduler alone, and its steps in each round


class Crowd(NamedTuple):
    """What one round with one number of streams gave. plain: without the profiler. profile: or why there is none."""

    plain: Watched
    watched: Watched
    profile: Profile | str
    late: int
    faults: list[str]


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    return asyncio.run(_main(options))


async def _main(options: argparse.Namespace) -> int:
    progress("measuring the scheduler alone")
    alone = [await asyncio.to_thread(planning, _ALONE, _STEPS) for _ in range(options.rounds)]
    most = max(options.streams)
    words = [await asyncio.to_thread(model_folder, options.model), options.dtype, options.device, str(most)]
    command = [sys.executable, "-m", f"{__package__}.peers.watched", *words]
    trials: dict[int, list[Crowd]] = {streams: [] for streams in options.streams}
    progress("starting a server")
    async with started("the server", command) as server:
        await _trial(server, options, 1, 0, min(1.0, options.seconds))  # warms up
        for number in range(1, options.rounds + 1):
            for streams, of in trials.items():
                progress(f"round {number} of {options.rounds}: {streams} streams")
                of.append(await _trial(server, options, streams, number * 10_000, options.seconds))
    figures = [*_of_planning(alone)]
    for streams, of in trials.items():
        figures += _of_trials(f"{streams} streams", of)
    first = server.first
    show(setting("overhead", options.model, first["dtype"], first["device"], options.rounds), figures, options.json)
    profile = trials[most][-1].profile
    if options.flame is not None and isinstance(profile, Profile):
        await asyncio.to_thread(options.flame.write_bytes, profile.file)
        progress(f"wrote {options.flame}: speedscope.app shows it as a flame graph")
    return 0


async def _trial(server: Peer, options: argparse.Namespace, streams: int, seed: int, seconds: float) -> Crowd:
    interval, lead, profiled_s = 1 / options.fps, min(_LEAD_S, seconds), max(1.0, seconds)
    shown = lead + seconds + 2 * profiled_s + 1  # py-spy needs a moment to start and to write
    async with contextlib.AsyncExitStack() as stack:
        cameras = []
        for place in range(streams):
            connection = await stack.enter_async_context(connect(server.first["url"]))
            pictures = await asyncio.to_thread(jpegs, seed + place, round(shown * options.fps) + 2)
            stream = await connection.stream(Request(format="live", video_fps=options.fps, policy="latest"))
            cameras.append(await stack.enter_async_context(PacedCamera(stream, pictures, options.fps, "frame")))
        for camera in cameras[::_SPEAKING]:
            await camera.ask(QUESTION, greedy(_NO_END))
        start = time.perf_counter() + interval
        shows = [
            asyncio.create_task(camera.show(start + interval * place / streams, shown), name="bench.overhead.show")
            for place, camera in enumerate(cameras)
        ]
        await asyncio.sleep(interval + lead)
        plain = await _watched(server, seconds)
        watched, profile = await asyncio.gather(_watched(server, profiled_s), profiled(server.pid, profiled_s))
        for task in shows:
            task.cancel()
        await asyncio.gather(*shows, return_exceptions=True)
        for camera in cameras[::_SPEAKING]:
            await camera.interrupt()
        faults = [fault for camera in cameras for fault in camera.faults]
        return Crowd(plain, watched, profile, sum(camera.late for camera in cameras), faults)


async def _watched(server: Peer, seconds: float) -> Watched:
    answer = await server.run({"seconds": seconds})
    if "error" in answer:
        raise EngineFailedError(answer["error"])
    return msgspec.convert(answer, Watched)


def _of_planning(rounds: list[Planning]) -> Iterator[Figure]:
    values = {
        "policy": [one.policy for one in rounds],
        "plan, policy included": [one.plan for one in rounds],
        "commit": [one.commit for one in rounds],
        "publish": [one.publish for one in rounds],
        "all": [one.all for one in rounds],
    }
    for what, of in values.items():
        yield Figure(bench="overhead", case=f"scheduler alone, {_ALONE} speak", what=what, unit="ms", rounds=[*of])


def _of_trials(case: str, trials: list[Crowd]) -> Iterator[Figure]:
    """The figures of one number of streams; where there is no profile, those that need one say why."""
    faults = [fault for one in trials for fault in one.faults]
    note = f"{len(faults)} times something like: {faults[0]}" if faults else ""
    late = sum(one.late for one in trials)
    if late and not note:
        note = f"{late} pictures were sent late: the clients were too slow, or the machine was busy"
    why = next((one.profile for one in trials if isinstance(one.profile, str)), "")

    def figure(what: str, unit: str, values: list[float | None], note: str = note, **ratio: Any) -> Figure:
        return Figure(bench="overhead", case=case, what=what, unit=unit, rounds=values, note=note, **ratio)

    plain = [one.plain for one in trials]
    for place, name in enumerate(("p50", "p99", "most")):
        yield figure(f"event loop lag, {name}", "ms", [one.lag_ms[place] for one in plain])
    for place, name in enumerate(("p50", "p99", "most")):
        yield figure(f"event loop at work, {name}", "ms", [one.work_ms[place] for one in plain])
    yield figure("event loop, of a core", "%", [one.loop * 100 for one in plain])
    steps: list[float | None] = [percentile(one.step_ms, 50) for one in plain]
    yield figure("steps, p50", "ms", steps)
    yield figure("steps, of all time", "%", [one.stepping * 100 for one in plain])
    between: list[float | None] = [percentile(one.between_ms, 50) for one in plain]
    yield figure("between steps, p50", "ms", between, against="steps", ratios=per_round(between, steps))
    yield figure("memory, growth", "MiB", [_growth(one.memory) for one in plain])
    beside = [[all - media for all, media in zip(one.memory, one.media, strict=False)] for one in plain]
    yield figure("memory beside that of streams, growth", "MiB", [_growth(one) for one in beside])
    parts = [_parts(one) for one in trials]
    of_steps = [one.get(STEP) for one in parts]
    host = [sum(one[part] for part in HOST) if one else None for one in parts]
    for what, values in (("host work", host), *((part, [one.get(part) for one in parts]) for part in PARTS)):
        yield figure(f"time: {what}", "%", values, why, against=STEP, ratios=per_round(values, of_steps))


def _growth(sizes: list[int]) -> float | None:
    """MiB from the mean of the first third to that of the last third."""
    third = len(sizes) // 3
    return (sum(sizes[-third:]) - sum(sizes[:third])) / third / 2**20 if third else None


def _parts(trial: Crowd) -> dict[str, float]:
    """Percent of a core by part; empty without a profile."""
    if isinstance(trial.profile, str):
        return {}
    seconds = trial.watched.seconds
    return {part: of / seconds * 100 for part, of in trial.profile.parts(trial.watched.loop * seconds).items()}
