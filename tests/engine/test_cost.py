"""What an append and a decode step cost does not grow with the history.

Counted, not timed: bytes and rows of the tensors that reach torch, calls of Python functions, and the size of the plan.
The model's weights, the cache's pools and the page tables are there once and for all; attention's own reading is left
out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from penstock.codecs.frame import Pixels
from penstock.engine.family import Loaded
from penstock.engine.runner.attention import Backend, Part
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .acts import FRAMES, Client
from .rig import FRAME_US, Rig

HISTORIES = (1_000, 20_000)


class NoAttention(Backend):
    """Attends to nothing, so that only what is around it is counted."""

    page_tokens = 16

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float, cap: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(query), query.new_zeros(query.shape[:2])


class Counted(TorchDispatchMode):
    """Counts the tensors that operations get, but for those whose storage is known."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known = known
        self.bytes = self.rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs or {})):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in self.known:
                self.bytes += leaf.nbytes
                self.rows += leaf.shape[0] if leaf.ndim else 1
        return func(*args, **(kwargs or {}))


class Calls:
    """Counts calls of Python and built-in functions."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: Any, event: str, argument: Any) -> None:
        self.count += event in ("call", "c_call")


def storages(rig: Rig) -> set[int]:
    language, towers = rig.core.language, rig.core.loaded.towers
    tensors = [
        *language.cache.keys,
        *language.cache.values,
        language.cache.tables,
        *language.text.parameters(),
        *language.text.buffers(),
    ]
    tensors += [*language.head.parameters(), *getattr(towers, "model", language.text).parameters()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def spoken(loaded: Loaded, history: int) -> tuple[Rig, Client]:
    """A stream with so many rows of history, and a reply that runs."""
    rig = Rig(loaded, kv_tokens=24_576, page_tokens=16, step_rows=4096, append_rows=4096)
    rig.core.language.backend = NoAttention()
    client = Client(rig.open(format="live"))
    words = "door " * 50
    for _ in range(history // len(loaded.family.text_ids(words))):
        client.session.text(words)
    client.do("ask", max_tokens=200)
    rig.step(12)
    assert len(client.session.ids()) > 2
    return rig, client


def host_bytes(plan: Any) -> int:
    """The size of a plan as it would go to another process, without its embeddings."""
    return len(
        msgspec.msgpack.encode(plan, enc_hook=lambda value: value.tolist() if value.ndim < 2 else list(value.shape))
    )


def costs(loaded: Loaded, history: int, act: Callable[[Rig, Client], None]) -> dict[str, int]:
    rig, client = spoken(loaded, history)
    act(rig, client)  # what is built at the first time
    rig.step(2)
    scheduler = rig.core.scheduler
    assert abs(scheduler.streams[client.session.stream].rows - history) < 0.2 * history
    with Counted(storages(rig)) as counted:
        act(rig, client)
        done = rig.core.step()
    assert done is not None
    rig.core.step()
    with Calls() as calls:
        act(rig, client)
        rig.core.step()
    return {"bytes": counted.bytes, "rows": counted.rows, "calls": calls.count, "plan": host_bytes(done[0])}


def no_act(rig: Rig, client: Client) -> None:
    """A step that decodes only."""


def append(rig: Rig, client: Client) -> None:
    """A pair of frames, to the engine alone."""
    session = client.session
    session.seq += 1
    pair = [Pixels(FRAMES[index], (client.shown + index) * FRAME_US) for index in range(2)]
    client.shown += 2
    rig.core.append(session.stream, session.seq, session.timeline.feed(session.seq, pair).segments)


@pytest.mark.parametrize("act", [no_act, append], ids=["decode step", "append"])
def test_equal_at_any_history(omni_loaded: Loaded, act: Callable[[Rig, Client], None]) -> None:
    short, long = (costs(omni_loaded, history, act) for history in HISTORIES)
    assert min(short.values()) > 0
    for name, count in short.items():
        larger = 64 if name == "plan" else 0  # the numbers of rows and pages in a plan grow by a byte or two
        assert abs(long[name] - count) <= 0.05 * count + larger, (
            f"{name}: {count} at {HISTORIES[0]} rows, {long[name]} at {HISTORIES[1]}"
        )


def test_a_walk_over_the_history_would_be_found(omni_loaded: Loaded) -> None:
    def walk(rig: Rig, client: Client) -> None:
        runs = rig.core.scheduler.transcript(client.session.stream)
        torch.tensor([id for run in runs for id in run.ids]).sum()

    short, long = (costs(omni_loaded, history, walk) for history in HISTORIES)
    assert all(long[name] > 1.05 * short[name] for name in ("bytes", "rows", "calls"))
