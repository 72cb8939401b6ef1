"""What one append and one decode step cost does not grow with history: counted, not timed.

Counted are tensor operations and the bytes of their inputs, calls of Python functions, and rows fed. Attention's own
reading of the history is apart: it is left out here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from penstock.engine.family import Loaded
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .acts import Client
from .rig import Rig

SHORT, LONG = 1_000, 20_000


class NoAttention:
    page_tokens = 16

    def attend(self, query: torch.Tensor, keys: Any, values: Any, part: Any, scale: float) -> tuple[Any, Any]:
        return torch.zeros_like(query), torch.zeros(query.shape[:2])


class Count(TorchDispatchMode):
    """Operations, and the bytes of the tensors that go in; the cache and the tables are only passed, not read."""

    def __init__(self, kept: set[int]) -> None:
        super().__init__()
        self.kept = kept
        self.operations = self.bytes = self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        for leaf in tree_leaves((args, kwargs or {})):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in self.kept:
                self.bytes += leaf.nbytes
        return func(*args, **(kwargs or {}))


def cost(rig: Rig, work: Callable[[], Any]) -> dict[str, int]:
    language = rig.core.language
    kept = {t.untyped_storage().data_ptr() for t in (*language.keys, *language.values, language.tables)}
    count = Count(kept)

    def profile(frame: Any, event: str, argument: Any) -> None:
        count.calls += event == "call"

    with count:
        sys.setprofile(profile)
        try:
            work()
        finally:
            sys.setprofile(None)
    plan = rig.plans[-1]
    rows = sum(len(run) for feed in plan.feeds for run in feed.rows)
    return {"operations": count.operations, "bytes": count.bytes, "calls": count.calls, "rows": rows}


def costs(loaded: Loaded, history: int) -> dict[str, dict[str, int]]:
    rig = Rig(loaded, kv_tokens=LONG + 2_000, page_tokens=16, step_rows=4096, append_rows=4096)
    rig.core.language.backend = NoAttention()
    client = Client(rig.open(format="live"))
    session = client.session
    words = "a red box and a blue light on the hill " * 40
    while rig.core.scheduler.streams[session.stream].rows < history - 450:
        session.text(words)
    while rig.core.scheduler.streams[session.stream].rows < history - 20:
        session.text("door")
    client.do("pair")
    session.ask("What?", max_tokens=100_000, temperature=0.0)
    rig.step(12)
    reply = rig.core.scheduler.streams[session.stream].reply
    while rig.core.scheduler.streams[session.stream].fed % 16 != 3 or (reply is not None and reply.text.open):
        rig.step()  # the same place in a page, and no open character
    assert abs(session.rig.core.scheduler.streams[session.stream].fed - history) < history // 10
    decode = cost(rig, rig.step)
    client.do("frame")

    def append() -> None:
        client.do("frame")
        rig.step()

    return {"decode": decode, "append": cost(rig, append)}


@pytest.mark.timeout(180)
def test_cost_does_not_grow_with_history(omni_loaded: Loaded) -> None:
    short, long = costs(omni_loaded, SHORT), costs(omni_loaded, LONG)
    for kind in ("decode", "append"):
        assert short[kind]["rows"] == long[kind]["rows"] > 0
        for what, before in short[kind].items():
            assert before > 0
            assert abs(long[kind][what] - before) <= 0.05 * before, (kind, what, before, long[kind][what])
