"""A server whose clients come, ask, cut and vanish at three doors is afterwards as it was before."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from doors_soak import VISITS, WAYS, Crowd
from test_metrics import told

from tests.fixtures.recipe import model_path

ANNOUNCED = "penstock: serving on "
# Figures that are 0 when nobody is there.
NOTHING = [
    *(f"penstock_connections{{door={door}}}" for door in VISITS),
    *("penstock_streams", "penstock_engine_streams", "penstock_requests_running", "penstock_requests_waiting"),
    *("penstock_encoder_queue", "penstock_span_bytes", "penstock_lookback_bytes", "penstock_kv_pages_host"),
]
# Figures that do not rise, and what has to be free again.
LOW = ["penstock_tasks", FDS := "process_open_fds"]
FREE = "penstock_kv_pages_free"
WORKER_FDS = 3  # of a process that decodes, which is started when it is first needed
# Memory of the process, and what of it is no page of a file: a machine that is short takes the others away.
RSS, OWN = "process_resident_memory_bytes", "memory of its own"
MINUTE = 60.0


def children(process: int) -> int:
    """How many processes it has started that run."""
    return sum(len(file.read_text().split()) for file in Path(f"/proc/{process}/task").glob("*/children"))


def own_bytes(process: int) -> int:
    """Memory that it has asked for, swapped out or not."""
    status = Path(f"/proc/{process}/status").read_text()
    return sum(1024 * int(kb) for kb in re.findall(r"(?:RssAnon|VmSwap):\s*(\d+) kB", status))


class Server:
    """A server that runs; nobody else asks it."""

    def __init__(self, url: str, process: int) -> None:
        self.url = url
        self._process = process

    async def at_rest(self, before: dict[str, float] | None = None) -> dict[str, float]:
        """The figures when everybody has gone, and all is as `before`."""
        wrong: dict[str, object] = {}
        for _ in range(200):
            now = await self._figures()
            wrong = {name: now[name] for name in NOTHING if now.get(name, 0.0) != 0}
            if before is not None:
                wrong |= {name: (before[name], now[name]) for name in LOW if before[name] < now[name]}
                wrong |= {FREE: (before[FREE], now[FREE])} if before[FREE] != now[FREE] else {}
            if not wrong:
                return now
            await asyncio.sleep(0.1)
        raise AssertionError(f"expected the server to be as before, got {wrong}")

    async def _figures(self) -> dict[str, float]:
        """All, with the descriptors that are not those of workers, and the memory of its own."""
        now = await told(self.url)
        now[FDS] -= WORKER_FDS * children(self._process)
        now[OWN] = own_bytes(self._process)
        return now


@contextmanager
def served(log: Path) -> Iterator[Server]:
    """`penstock serve` with the small random model, in a process of its own. Afterwards its log must hold no fault."""
    serve = [sys.executable, "-m", "penstock.server.cli", "serve", str(model_path("omni")), "--port", "0"]
    options = ["--resume-seconds", "1", "--unread-seconds", "5"]
    with (
        log.open("w") as stderr,
        subprocess.Popen([*serve, *options], stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(ANNOUNCED), log.read_text()
            yield Server(line.removeprefix(ANNOUNCED).strip(), process.pid)
            assert process.poll() is None
        finally:
            process.terminate()
    written = log.read_text()
    faults = [
        line for line in written.splitlines() if "Traceback" in line or "ERROR" in line or "never retrieved" in line
    ]
    assert not faults and process.returncode == 0, written[-5_000:]


async def soak(log: Path, clients: int, seconds: float, pace: float) -> None:
    """`clients` come for so long; `pace` seconds lie between two pieces of their media. With minutes, the memory may
    be 5 % more than after the first minute."""
    with served(log) as server:
        crowd = Crowd(server.url, 1, pace)
        for door in VISITS:  # what is made at the first use is made
            await crowd.visit(door, "read", crowd.random)
        await server.at_rest()
        await asyncio.sleep(0.5)  # what ends without a figure of its own has ended
        before = await server.at_rest()
        if seconds > MINUTE:
            await crowd.come(clients, MINUTE)
            first = await server.at_rest(before)
            await crowd.come(clients, seconds - MINUTE)
            last = await server.at_rest(before)
            for name in (RSS, OWN):
                sys.stdout.write(f"{name}: {first[name]:.0f} after the first minute, {last[name]:.0f} at the end\n")
                assert last[name] <= 1.05 * first[name]
        else:
            await crowd.come(clients, seconds)
            await server.at_rest(before)
        for door, firsts in crowd.firsts.items():
            firsts.sort()
            half, most = (1000 * firsts[round(part * (len(firsts) - 1))] for part in (0.5, 0.95))
            sys.stdout.write(
                f"{door}: first token after {half:.0f} ms (p50), {most:.0f} ms (p95), {len(firsts)} replies\n"
            )
        assert len(crowd.visits) == len(VISITS) * len(WAYS), crowd.visits


@pytest.mark.timeout(60)
def test_seconds_of_nine_clients(tmp_path: Path) -> None:
    asyncio.run(soak(tmp_path / "log", 9, 2.0, 0.02))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_minutes_of_thirty_two_clients(tmp_path: Path) -> None:
    asyncio.run(soak(tmp_path / "log", 32, 600.0, 0.4))
