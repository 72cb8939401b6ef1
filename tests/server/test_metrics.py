"""`/metrics`: Prometheus is told what clients were told. It comes back to nothing when they have gone, and does not
grow with them. The board for Grafana asks for nothing that is not there."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from harness import get_bytes, run, serving, shot
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.errors import PenstockError
from penstock.server.client import connect
from penstock.server.keys import ApiKey
from penstock.server.metrics import Meter, StreamMeter
from penstock.streams.event import Appended, Error, Evicted, ReplyDone, ReplyStarted, Resting, Token
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.recipe import model_path
from tests.reference.media import frames

BOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "penstock.json"


async def told(url: str) -> dict[str, float]:
    """All figures, by name and labels."""
    status, body = await get_bytes(url, "/metrics")
    assert status == 200
    return figures(body)


def figures(body: bytes) -> dict[str, float]:
    samples = [sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples]
    return {f"{name}{_shown(labels)}": value for name, labels, value, *_ in samples}


def _shown(labels: dict[str, str]) -> str:
    return "{" + ",".join(f"{key}={value}" for key, value in sorted(labels.items())) + "}" if labels else ""


def test_figures_are_what_the_clients_were_told_and_return_to_nothing() -> None:
    async def main() -> None:
        engine = FakeEngine(tokens=3)
        async with serving(engine) as url:
            async with connect(url) as connection:
                async with await connection.stream(Request()) as stream:
                    for _ in range(2):
                        await (await stream.ask("Who?")).text()
                    with pytest.raises(PenstockError):
                        await stream.ask("Who?", SamplingParams(max_tokens=-1))
                    during = await told(url)
            gone = await told(url)
            while gone["penstock_connections{door=/v1/stream}"]:
                gone = await told(url)
        assert during["penstock_streams"] == during["penstock_connections{door=/v1/stream}"] == 1
        assert during["penstock_generation_tokens_total"] == 6
        assert during["penstock_requests_total{finished_reason=length}"] == 2
        for name in ("time_to_first_token", "e2e_request_latency"):
            assert during[f"penstock_{name}_seconds_count"] == 2
        assert during["penstock_inter_token_latency_seconds_count"] == 4
        assert sum(value for name, value in during.items() if name.startswith("penstock_errors_total")) == 1
        assert gone["penstock_streams"] == gone["penstock_requests_running"] == gone["penstock_requests_waiting"] == 0
        assert gone["penstock_streams_ended_total{reason=closed}"] == 1
        assert gone["penstock_connections_opened_total{door=/v1/stream}"] == 1

    run(main)


def test_an_error_over_http_counts_once() -> None:
    """What the door refuses, and what the session does: a picture that is more than the key may show."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    good = {"messages": [{"role": "user", "content": [picture]}]}
    keys = (ApiKey(name="a", key="k", bytes_per_second=1),)

    async def main() -> None:
        async with serving(FakeEngine(), keys=keys) as url:
            for body, status in (({**good, "dry": 1}, b" 400 "), (good, b" 429 ")):
                text = json.dumps(body).encode()
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n"
                answer = await shot(url, f"{head}Authorization: Bearer k\r\nConnection: close\r\n\r\n".encode() + text)
                assert status in answer.partition(b"\r\n")[0]
            now = await told(url)
        errors = {name: value for name, value in now.items() if name.startswith("penstock_errors_total")}
        assert errors == {"penstock_errors_total{code=message}": 1, "penstock_errors_total{code=rate_limit}": 1}

    run(main)


def test_prompts_wait_until_their_replies_begin() -> None:
    """Those of requests over HTTP: while the engine has no stream for them, and while their stream has no reply."""
    engine = FakeEngine()
    engine.words, engine.gate, engine.hold_open = ["a"], asyncio.Semaphore(0), asyncio.Event()
    body = json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    sent = f"{head}Connection: close\r\n\r\n".encode() + body

    async def main() -> None:
        async with serving(engine) as url:

            async def seen(waiting: int, running: int) -> dict[str, float]:
                while True:
                    now = await told(url)
                    if (now["penstock_requests_waiting"], now["penstock_requests_running"]) == (waiting, running):
                        return now

            tasks = [asyncio.create_task(shot(url, sent)) for _ in range(2)]
            await seen(2, 0)
            assert engine.hold_open is not None and engine.gate is not None
            engine.hold_open.set()
            await seen(0, 2)
            engine.gate.release()
            engine.gate.release()
            await asyncio.gather(*tasks)
            now = await seen(0, 0)
            assert now["penstock_time_to_first_token_seconds_count"] == 2

    run(main)


def test_a_prompt_that_comes_to_nothing_waits_no_more() -> None:
    meter = Meter()
    for ends in (lambda stream: stream.note(Error("input", "no", 1)), lambda stream: stream.end("closed")):
        stream = meter.stream()
        stream.prompted(0.0)
        assert figures(meter.text())["penstock_requests_waiting"] == 1
        ends(stream)
        assert figures(meter.text())["penstock_requests_waiting"] == 0


def test_more_clients_make_no_more_time_series() -> None:
    """After the first stream has been through all of it, a second one adds no name and no label."""

    async def main() -> None:
        seen: list[set[str]] = []
        async with serving(FakeEngine(tokens=2)) as url:
            for turn in range(3):
                async with connect(url) as connection, await connection.stream(Request()) as stream:
                    await (await stream.ask(f"secret {turn}")).text()
                await asyncio.sleep(0)
                seen.append(set(await told(url)))
        assert seen[1] == seen[2]
        assert "secret" not in "".join(seen[2])

    run(main)


def test_a_real_engine_tells_of_media_and_pages_and_the_board_asks_for_nothing_else() -> None:
    loaded = load(model_path("omni"), EngineConfig())
    known: set[str] = set()
    missing: set[str] = set()
    now: dict[str, float] = {}

    async def main() -> None:
        async with Engine(loaded, EngineConfig()) as engine, serving(engine) as url, connect(url) as connection:
            async with await connection.stream(Request(format="live", video_fps=2.0)) as stream:
                for number, pixels in enumerate(frames(1, 4)):
                    await stream.append(VideoFrame(pixels, pts_us=number * 500_000))
                await (await stream.ask("What?", SamplingParams(max_tokens=4))).text()
                _, body = await get_bytes(url, "/metrics")
                now.update(figures(body))
                known.update(family.name for family in text_string_to_metric_families(body.decode()))

    run(main)
    assert now["penstock_up"] == 1
    assert 0 < now["penstock_kv_pages_free"] < now["penstock_kv_pages"]
    assert now["penstock_media_pieces_total{modality=video}"] == 2
    assert now["penstock_media_lag_seconds_count"] == 2
    assert now["penstock_window_reach_seconds{of=the longest}"] == 1.5
    assert now["penstock_steps_total"] > 0
    for query in board_queries():
        asked = set(re.findall(r"\b[a-z_]+\b(?!\s*\()", _bare(query)))
        missing |= {name for name in asked if re.sub("_(total|bucket|count|sum)$", "", name) not in known}
    assert len(known) > 40 and not missing


def _bare(query: str) -> str:
    """A query without what is in braces and brackets, and without what it groups by."""
    return re.sub(r"\b(by|on|ignoring) ?\([^)]*\)", "", re.sub(r"\{[^}]*\}", "", re.sub(r"\[[^\]]*\]", "", query)))


def board_queries() -> list[str]:
    """Every query of the board."""
    board: dict[str, Any] = json.loads(BOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 15
    return queries


def test_times_of_a_reply_leave_out_its_rests_and_do_not_depend_on_who_comes_first() -> None:
    """A question's number may come after the reply's first token; between tokens with a rest nothing is measured."""
    at = [0.0]
    meter = Meter(lambda: at[0])
    stream = meter.stream()
    stream.note(ReplyStarted(1, 1))
    _say(stream, at, 2.0)
    stream.asked(1, 0.5)
    _say(stream, at, 3.0)
    stream.note(Resting(1, 2))
    _say(stream, at, 60.0)
    at[0] = 61.0
    stream.note(ReplyDone(1, "stop", 3))
    now = figures(meter.text())
    assert now["penstock_time_to_first_token_seconds_sum"] == 1.5
    assert now["penstock_inter_token_latency_seconds_sum"] == 1.0
    assert now["penstock_e2e_request_latency_seconds_sum"] == 60.5
    assert now["penstock_requests_running"] == 0


def _say(stream: StreamMeter, at: list[float], when: float) -> None:
    at[0] = when
    stream.note(Token(1, 0, 5, "Me", None))


def test_a_window_reaches_back_to_what_has_not_left() -> None:
    meter = Meter()
    stream = meter.stream()
    for start in range(0, 10_000_000, 1_000_000):
        stream.note(Appended(1, "video", start, start + 1_000_000, 0, 8, 0))
    assert stream.reach == 10.0
    stream.note(Evicted(0, 32, start_us=0, stop_us=4_000_000))
    assert stream.reach == 6.0
    stream.note(Evicted(32, 4))  # words only
    assert stream.reach == 6.0
    stream.end("closed")
    assert "penstock_window_reach_seconds{" not in meter.text().decode()
