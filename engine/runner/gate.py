"""One of two threads computes at a time: the step loop goes first, the towers in between.

A tower passes the gate before each of its blocks, so a long clip never holds up a running reply for longer than one
block. Between two steps a tower that waits gets one block, so a reply never holds up media for good either. Nothing in
what is computed changes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

_GATE: ContextVar[Gate | None] = ContextVar("gate", default=None)


def turn() -> AbstractContextManager[None]:
    """To be held around each pass of a tower, not around what prepares it: the gate of the encoder in whose call this
    is. Outside of such a call nothing is held."""
    gate = _GATE.get()
    return nullcontext() if gate is None else gate.tower()


class Gate:
    """A lock with precedence for steps; for one thread that steps and one that encodes."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._busy = False
        self._steps = 0  # steps that wait or run
        self._waiting = False  # the tower waits
        self._owed = False  # a step has ended while the tower waited: one block goes before the next step
        self._tower: int | None = None  # the thread that is inside `tower`
        self._hooks: list[Any] = []

    @property
    def steps(self) -> int:
        """Steps that wait or run."""
        return self._steps

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold the gate for one step; waits for the tower's current block at most."""
        with self._turn:
            self._steps += 1
            self._turn.wait_for(lambda: not self._busy and not self._owed)
            self._busy = True
        try:
            yield
        finally:
            with self._turn:
                self._steps -= 1
                self._owed = self._waiting
            self._leave()

    @contextmanager
    def tower(self) -> Iterator[None]:
        """Hold the gate for encoder work, given up for steps wherever `rest` is called."""
        self._enter()
        self._tower = threading.get_ident()
        try:
            yield
        finally:
            self._tower = None
            self._leave()

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Inside, `turn` is this gate's: towers may serve several engines, each with a gate of its own."""
        before = _GATE.set(self)
        try:
            yield
        finally:
            _GATE.reset(before)

    def rest(self) -> None:
        """Let a waiting step run; only inside `tower`, elsewhere nothing happens."""
        if self._tower == threading.get_ident() and self._steps:
            self._leave()
            self._enter()

    def watch(self, blocks: Iterable[Any]) -> None:
        """Rest before the forward pass of each of these modules."""
        self._hooks += [block.register_forward_pre_hook(lambda module, inputs: self.rest()) for block in blocks]

    def unwatch(self) -> None:
        """Leave the modules as they were."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _enter(self) -> None:
        with self._turn:
            self._waiting = True
            self._turn.wait_for(lambda: not self._busy and (self._owed or not self._steps))
            self._waiting = self._owed = False
            self._busy = True

    def _leave(self) -> None:
        with self._turn:
            self._busy = False
            self._turn.notify_all()
