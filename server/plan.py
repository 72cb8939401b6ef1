"""`penstock plan`: how a model would share out memory, computed without its weights. In: options. Out: a table or one
JSON object on stdout.

Loads torch when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from ..engine.config import EngineConfig
from ..engine.loading.compute import amount

if TYPE_CHECKING:
    from ..engine.loading.forecast import Forecast


def main(options: argparse.Namespace, config: EngineConfig) -> int:
    """Print the plan; 0. ModelError where the model cannot be planned or does not fit."""
    from ..engine.loading.forecast import forecast

    elsewhere = None if options.device_gib is None else int(options.device_gib * 2**30)
    found = forecast(options.model, config, options.revision, elsewhere, [folder for _, folder in options.adapter])
    if options.json:
        memory = {name: getattr(found.memory, name) for name in ("kv_bytes", "tokens")}
        memory |= msgspec.structs.asdict(found.memory)
        told = msgspec.structs.asdict(found) | {"model": options.model or "Brook", "left_bytes": found.left_bytes}
        print(msgspec.json.encode(told | {"memory": memory}).decode(), flush=True)
        return 0
    why = f": {found.why}" if found.why else ""
    print(f"{options.model or 'Brook'} ({found.family}), {found.dtype} on {found.device}{why}")
    for name, what in _rows(found, config):
        print(f"  {name:9} {what}", flush=True)
    return 0


def _rows(found: Forecast, config: EngineConfig) -> Iterator[tuple[str, str]]:
    memory, free = found.memory, found.free_bytes
    if free is not None:
        yield "free", f"{amount(free)} before the model is loaded"
    yield "weights", amount(memory.weight_bytes - found.draft_bytes)
    if found.draft_bytes:
        yield "draft", f"{amount(found.draft_bytes)}, the weights of {config.speculative}"
    yield "step", f"{amount(memory.step_bytes)}, the largest: {config.step_rows} rows, {config.slots} tokens drawn"
    kept = " and what it keeps there" if found.device.startswith("cuda") else ""
    yield "encoder", f"{amount(memory.encoder_bytes)}, its largest turn{kept}"
    yield "cache", f"{amount(memory.kv_bytes)}: {memory.pages} pages of {memory.page_tokens} rows"
    gain = f" in {memory.kv_dtype}: {memory.kv_gain:.2f} times as many rows as in {found.dtype}"
    yield "", f"{amount(memory.token_bytes)} a row{'' if memory.kv_dtype == 'auto' else gain}"
    if memory.streams:
        yield "states", f"{amount(memory.states_bytes)}: {memory.streams} streams, {amount(memory.state_bytes)} each"
    if found.adapter_bytes:
        yield "adapters", amount(found.adapter_bytes)
    if (left := found.left_bytes) is not None:
        yield "left", amount(left) if left >= 0 else f"none: {amount(-left)} too little for the step and the encoder"
    yield "fits", f"{memory.tokens} rows of cache, {memory.tokens // 8192} streams of 8k tokens"
    if found.device.startswith("cuda"):
        yield "", "estimated: when it is loaded on CUDA, step and turn are run once and measured"
    if found.tried:
        yield "", "if it is served: a trial decides when it is loaded"
