"""`penstock bench compare`: the cases of `latency` and `throughput` on Penstock, `transformers` and vLLM, in turn.

Each engine has a process of its own, which waits while another one computes. All get the same media and prompts, and
all reply greedily. A ratio is given only where both replied with as many tokens, and in float32 with the same tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import torch

from . import latency, throughput
from .cases import Answer, Case, Measured, latency_cases, measure, throughput_cases
from .figures import Figure, per_round, setting, show
from .peer import open_peer
from .presets import model_folder

OURS = "penstock"


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    return asyncio.run(_main(options))


async def _main(options: argparse.Namespace) -> int:
    dtype = "float32" if options.dtype == "auto" else options.dtype  # all compute in the same one
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = found if options.device == "auto" else options.device
    first = latency_cases(options.frames, options.image_tokens)
    many = throughput_cases(options.requests, options.tokens, options.image_tokens)
    model = await asyncio.to_thread(model_folder, options.model)
    pythons = {OURS: None, "transformers": None} | ({} if options.vllm is None else {"vllm": options.vllm})
    async with contextlib.AsyncExitStack() as stack:
        peers = {
            name: await stack.enter_async_context(open_peer(name, python, model, dtype, device))
            for name, python in pythons.items()
        }
        runs = {name: peer.run for name, peer in peers.items()}
        measured = await measure(runs, [*first, *many], options.rounds)
    abouts = ", ".join(f"{name} {peer.about}" for name, peer in peers.items())
    where = setting("compare", options.model, dtype, device, options.rounds)
    where = msgspec.structs.replace(where, device=f"{device} ({abouts})")
    show(where, figures(first, many, measured, dtype), options.json)
    return 0


def figures(first: list[Case], many: list[Case], measured: dict[str, Measured], dtype: str) -> Iterator[Figure]:
    """The figures of all engines, those of one quantity together, each with Penstock's share of it as its ratios."""
    parts = ((first, latency.figures), (many, throughput.figures))
    by_engine = {
        engine: [figure for cases, figures in parts for figure in figures(cases, answers, engine)]
        for engine, answers in measured.items()
    }
    for ours, *others in zip(*(by_engine[name] for name in by_engine), strict=True):
        yield _compared(ours, {})
        for theirs in others:
            answers = measured[OURS][ours.case], measured[theirs.engine][ours.case]
            unlike = [why(*pair, dtype) for pair in zip(*answers, strict=True)]
            ratios = [
                None if unlike[turn] else ratio for turn, ratio in enumerate(per_round(ours.rounds, theirs.rounds))
            ]
            note = theirs.note or next((reason for reason in unlike if reason), "")
            yield _compared(theirs, {"ratios": ratios, "against": "(penstock / this)", "note": note})


def _compared(figure: Figure, ratios: dict[str, Any]) -> Figure:
    """The figure with these ratios, and without those to another case."""
    return msgspec.structs.replace(figure, bench="compare", **({"ratios": [], "against": ""} | ratios))


def why(ours: Answer, theirs: Answer, dtype: str) -> str:
    """Why two answers to a case must not be compared; empty if they may."""
    for answer in (ours, theirs):
        if "error" in answer:
            return f"failed: {answer['error']}"
    counts = [[len(ids) for ids in answer["ids"]] for answer in (ours, theirs)]
    if counts[0] != counts[1]:
        return f"no ratio: Penstock gave {sum(counts[0])} tokens, this one {sum(counts[1])}"
    if dtype == "float32" and ours["ids"] != theirs["ids"]:
        differ = sum(mine != yours for mine, yours in zip(ours["ids"], theirs["ids"], strict=True))
        return f"no ratio: in float32 {differ} of {len(counts[0])} replies have other tokens"
    return ""
