"""What one append and one decode step cost, by length of history.

In: lengths of histories. Out: plain figures. Drives the engine by hand, through `Core`, without an event loop and
without sockets, so that a figure is the time of one step and nothing else. It does not know how figures are printed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec
import numpy as np
import torch

from ... import EngineConfig, Request, SamplingParams
from ...engine.command import Park
from ...engine.core import Core
from ...engine.loading.open import load
from ...engine.plan import Plan, Result
from ...engine.runner.attention import Backend, Part
from ...streams.segment import VideoSegment
from .models import SIDE
from .stock import Stock

P = ParamSpec("P")
T = TypeVar("T")


class AppendCost(msgspec.Struct, frozen=True):
    """Medians at one history, ours and those of plain `transformers` in the same rounds.

    rows: of an append of one frame pair. bytes: that are handed to the model for it. append_ms: the append, the encoder
    included. decode_ms: one decode step. `transformers` has one user and a kept cache.
    """

    history: int
    rows: int
    bytes: int
    append_ms: float
    decode_ms: float
    transformers_append_ms: float
    transformers_decode_ms: float


def append_costs(model: Path, histories: list[int], rounds: int, config: EngineConfig) -> Iterator[AppendCost]:
    """Time appends and decode steps of one live stream at each length of history, interleaved over `rounds` rounds.

    model: the folder of a Qwen2.5-Omni thinker, the one model that `Stock` knows.
    """
    loaded = load(model, config)
    core = Core(loaded, msgspec.structs.replace(config, kv_tokens=sum(histories) + len(histories) * 64 * (rounds + 8)))
    stock_model = Stock.load(loaded.family.data.model, loaded.dtype, loaded.device)
    stocks = {history: Stock(*stock_model, history) for history in histories}
    clips = np.random.default_rng(0)
    for number, history in enumerate(histories, 1):
        core.open(number, Request(format="live"))
        _fill(core, number, history)
        core.scheduler.apply(Park(number, True))  # only the stream that is measured runs
    measured: dict[int, list[tuple[float, ...]]] = {history: [] for history in histories}
    seq = 10_000
    for turn in range(rounds + 2):
        for number, history in enumerate(histories, 1):
            seq += 1
            core.scheduler.apply(Park(number, False))
            while (reply := core.scheduler.streams[number].reply) is not None and reply.text.open:
                core.step()  # a splice would wait for the open character
            pixels = clips.integers(0, 255, (2, SIDE, SIDE, 3), dtype=np.uint8)
            segment = VideoSegment(seq, 0, pixels, seq * 1_000_000, seq * 1_000_000 + 500_000)
            done, append_ms = _timed(_append, core, number, seq, segment)
            _, decode_ms = _timed(core.step)
            _, stock_append_ms = _timed(stocks[history].append, pixels)
            _, stock_decode_ms = _timed(stocks[history].decode)
            core.scheduler.apply(Park(number, True))
            assert done is not None
            if turn >= 2:
                rows, size = _handed_over(done[0])
                measured[history].append((rows, size, append_ms, decode_ms, stock_append_ms, stock_decode_ms))
    for history, runs in measured.items():
        columns = [statistics.median(column) for column in zip(*runs, strict=True)]
        yield AppendCost(history, int(columns[0]), int(columns[1]), *(round(ms, 3) for ms in columns[2:]))


def _append(core: Core, stream: int, seq: int, segment: VideoSegment) -> tuple[Plan, Result] | None:
    core.append(stream, seq, [segment])
    return core.step()


def _timed(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """What `work` gives, and its milliseconds."""
    begun = time.perf_counter()
    result = work(*args, **kwargs)
    return result, (time.perf_counter() - begun) * 1000


class _NoAttention(Backend):
    """Leaves attention out while a history is filled: what the cache holds does not change what a step costs."""

    page_tokens = 16

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float, cap: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(query), query.new_zeros(query.shape[:2], dtype=torch.float32)


def _fill(core: Core, stream: int, history: int) -> None:
    """Bring a stream to `history` rows: words, then a question whose reply stays open."""
    backend, core.language.backend = core.language.backend, _NoAttention()
    words = "what is there to see and to hear in this scene now ? " * 8
    seq = 0
    while core.scheduler.streams[stream].rows < history - 150:
        seq += 1
        core.text(stream, seq, words)
        core.run()
    core.ask(stream, seq + 1, "What do you see?", SamplingParams(max_tokens=1_000_000, temperature=0.0))
    while core.scheduler.streams[stream].fed < history:
        core.step()
    core.scheduler.events()
    core.language.backend = backend


def _handed_over(plan: Plan) -> tuple[int, int]:
    runs = [run for feed in plan.feeds for run in feed.rows]
    size = sum(run.nbytes for run in runs)
    return sum(len(run) for run in runs), size + sum(4 * len(edit.pages) for edit in plan.edits)
