"""`penstock bench append`: prints what costs.py and latency.py measure, as a table or as one JSON object a line."""

from __future__ import annotations

import argparse
import asyncio
import platform

import msgspec

from ... import EngineConfig
from .costs import append_costs
from .latency import latencies


def main(options: argparse.Namespace) -> int:
    """Time per append and per decode step by history, then the time between tokens with other streams appending."""
    config = EngineConfig(device=options.device, cuda_graphs=options.cuda_graphs)
    histories = list(options.histories)
    costs = list(append_costs(histories, options.rounds, config))
    if options.json:
        for cost in costs:
            print(msgspec.json.encode(cost).decode(), flush=True)
    else:
        graphs = ", CUDA graphs" if options.cuda_graphs else ""
        processor = platform.processor() or platform.machine()
        print(f"{processor}, device {options.device}{graphs}, medians of {options.rounds} rounds")
        print(f"{'':>22}{'penstock, ms':>20}{'transformers, ms':>20}")
        print(f"{'history':>8} {'rows':>5} {'bytes':>7}{'append':>10}{'decode':>10}{'append':>10}{'decode':>10}")
        for cost in costs:
            ours = f"{cost.append_ms:10.2f}{cost.decode_ms:10.2f}"
            theirs = f"{cost.transformers_append_ms:10.2f}{cost.transformers_decode_ms:10.2f}"
            print(f"{cost.history:8} {cost.rows:5} {cost.bytes:7}{ours}{theirs}")
    for latency in asyncio.run(latencies([0, 8], options.tokens, config)):
        if options.json:
            print(msgspec.json.encode(latency).decode(), flush=True)
        else:
            print(
                f"{latency.others} other streams at 2 frames/s: {latency.median_ms:.2f} ms between tokens (median), "
                f"{latency.p95_ms:.2f} (95 %), {latency.worst_ms:.2f} (worst) over {latency.tokens} tokens"
            )
    return 0
