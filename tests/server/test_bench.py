"""`penstock bench append` prints one JSON object a line: costs by history, then latencies by load."""

from __future__ import annotations

import json

import pytest
from penstock.server.cli import main


def test_bench_append_prints_costs_and_latencies(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--histories", "200,400", "--rounds", "2", "--tokens", "30"]
    assert main(["bench", "append", "--json", *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    costs, latencies = lines[:2], lines[2:]
    assert [cost["history"] for cost in costs] == [200, 400]
    assert all({"history", "rows", "bytes", "append_ms", "decode_ms"} <= set(cost) for cost in costs)
    assert costs[0]["rows"] == costs[1]["rows"] > 1
    assert costs[0]["bytes"] == costs[1]["bytes"]
    assert [latency["others"] for latency in latencies] == [0, 8]
    assert [latency["tokens"] for latency in latencies] == [30, 30]
    assert latencies[1]["frames_appended"] >= 8
