"""`penstock bench append`: prints what costs.py and others.py measure, as a table or as one JSON object a line."""

from __future__ import annotations

import argparse
import asyncio
import platform
import tempfile
from pathlib import Path

import msgspec

from ... import EngineConfig
from .costs import AppendCost, append_costs
from .models import write_small
from .others import Latency, latencies


def main(options: argparse.Namespace) -> int:
    """Time per append and per decode step by history, then the time between tokens with other streams appending."""
    config = EngineConfig(device=options.device, cuda_graphs=False if options.no_cuda_graphs else None)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        model = Path(folder)
        write_small(model)
        costs = list(append_costs(model, list(options.histories), options.rounds, config))
        if not options.json:
            _print_heading(options)
        for cost in costs:
            print(msgspec.json.encode(cost).decode() if options.json else _row(cost), flush=True)
        for latency in asyncio.run(latencies(model, [0, 8], options.tokens, config)):
            print(msgspec.json.encode(latency).decode() if options.json else _sentence(latency), flush=True)
    return 0


def _print_heading(options: argparse.Namespace) -> None:
    graphs = ", no CUDA graphs" if options.no_cuda_graphs else ""
    processor = platform.processor() or platform.machine()
    print(f"{processor}, device {options.device}{graphs}, medians of {options.rounds} rounds")
    print(f"{'':>22}{'penstock, ms':>20}{'transformers, ms':>20}")
    print(f"{'history':>8} {'rows':>5} {'bytes':>7}{'append':>10}{'decode':>10}{'append':>10}{'decode':>10}")


def _row(cost: AppendCost) -> str:
    ours = f"{cost.append_ms:10.2f}{cost.decode_ms:10.2f}"
    theirs = f"{cost.transformers_append_ms:10.2f}{cost.transformers_decode_ms:10.2f}"
    return f"{cost.history:8} {cost.rows:5} {cost.bytes:7}{ours}{theirs}"


def _sentence(latency: Latency) -> str:
    return (
        f"{latency.others} other streams at 2 frames/s: {latency.median_ms:.2f} ms between tokens (median), "
        f"{latency.p95_ms:.2f} (95 %), {latency.worst_ms:.2f} (worst) over {latency.tokens} tokens"
    )
