"""A server in a process of its own that says how it does inside: `python -m ...watched MODEL DTYPE DEVICE STREAMS`.

In: a line on stdin for each measurement, `{"seconds"}`; the server ends with stdin. Out: one JSON object a line on
stdout, first where it serves, `{"url", "dtype", "device"}`, then a `Watched` for each measurement. Whatever else is
printed goes to stderr. Other processes of the same user may look into this one, which a profiler does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from .... import Engine
from ....engine.config import FITTING
from ....engine.plan import Plan, Result
from ...app import bind, new_loop, serve, settle
from ...config import ServerConfig
from ..arithmetic import percentile

_TICK_S = 0.01  # how often the event loop is asked to call back
_LOOK_S = 0.25  # how often the memory is looked at
_ROWS = 2048  # of KV cache, for each stream
_SET_PTRACER, _ANYONE = 0x59616D61, ctypes.c_ulong(-1)


class Watched(msgspec.Struct, frozen=True):
    """What was measured in `seconds`.

    lag_ms: how late the event loop called back, at the percentiles 50, 99 and 100. work_ms: processor time that its
    thread took between two calls, at the same: what other processes and threads take is not in it. loop: the share of a
    core that its thread took. step_ms: how long each step computed that ended. between_ms: from the result of a step to
    the plan of the next, where that followed at once. memory: bytes that the process holds, in the order of time; empty
    where the system does not say. media: bytes that streams hold in it, which grow while they live.
    """

    seconds: float
    lag_ms: tuple[float, float, float]
    work_ms: tuple[float, float, float]
    loop: float
    step_ms: list[float]
    between_ms: list[float]
    memory: list[int]
    media: list[int]

    @property
    def stepping(self) -> float:
        """The share of the time in which a step computed."""
        return sum(self.step_ms) / 1000 / self.seconds


class Watch:
    """The observer of an engine. `run` measures, in the event loop that is measured."""

    def __init__(self) -> None:
        self._step_ms: list[float] = []
        self._between_ms: list[float] = []
        self._ended: float | None = None  # when a step ended, if nothing has come for the scheduler since

    def __call__(self, mailbox: str, lane: str, message: Any) -> None:
        """Note a message between the actors."""
        now = time.perf_counter()
        if isinstance(message, Result):
            self._step_ms.append(message.ms)
            self._ended = now
        elif isinstance(message, Plan) and self._ended is not None:
            self._between_ms.append((now - self._ended) * 1000)
        elif mailbox == "schedule":
            self._ended = None

    async def run(self, engine: Engine, seconds: float) -> Watched:
        """Measure for so long."""
        self._step_ms.clear()
        self._between_ms.clear()
        memory: list[int] = []
        media: list[int] = []
        lags: list[float] = []
        works: list[float] = []
        start = looked = now = time.perf_counter()
        began = worked = time.thread_time()
        while now < start + seconds:
            await asyncio.sleep(_TICK_S)
            before, now = now, time.perf_counter()
            lags.append(max(0.0, now - before - _TICK_S) * 1000)
            works.append((time.thread_time() - worked) * 1000)
            if now > looked + _LOOK_S:
                looked = now
                memory += resident()
                media.append(_of_streams(engine))
                now = time.perf_counter()  # this was work of our own
            worked = time.thread_time()
        passed = time.perf_counter() - start
        loop = (time.thread_time() - began) / passed
        return Watched(passed, _at(lags), _at(works), loop, list(self._step_ms), list(self._between_ms), memory, media)


def _at(values: list[float]) -> tuple[float, float, float]:
    return percentile(values, 50), percentile(values, 99), max(values)


def resident() -> list[int]:
    """Bytes of this process that are in memory; empty where the system does not say."""
    try:
        return [int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")]
    except OSError:
        return []


def _of_streams(engine: Engine) -> int:
    """Bytes of the pages that are held, and of what is kept to feed streams again."""
    numbers, memory = engine.statistics(), engine.info.memory
    held = (numbers["pages"] - numbers["pages_free"]) * memory.kv_bytes // memory.pages
    return held + sum(numbers["bytes_by_stream"].values())


async def _main(model: str, dtype: str, device: str, streams: int, out: Any) -> None:
    def say(what: Any) -> None:
        out.write(msgspec.json.encode(what) + b"\n")
        out.flush()

    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    setup = msgspec.structs.replace(FITTING, dtype=dtype, device=device, kv_tokens=streams * _ROWS, slots=streams + 2)
    config, watch = ServerConfig(port=0, max_connections=streams + 2), Watch()
    async with await Engine.load(model or None, config=setup, observer=watch) as engine:
        settle()
        served = serve(engine, config, listener=bind(config), on_listening=listening.set_result)
        serving = asyncio.create_task(served, name="bench.serve")
        try:
            say({"url": await listening, "dtype": engine.info.dtype, "device": engine.info.device})
            while line := await asyncio.to_thread(sys.stdin.readline):
                say(await watch.run(engine, msgspec.json.decode(line)["seconds"]))
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


def main(model: str, dtype: str, device: str, streams: str) -> None:
    """Serve until stdin ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if sys.platform == "linux":  # where only a parent may look into a process otherwise
        ctypes.CDLL(None).prctl(_SET_PTRACER, _ANYONE, 0, 0, 0)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_main(model, dtype, device, int(streams), out))


if __name__ == "__main__":
    main(*sys.argv[1:])
