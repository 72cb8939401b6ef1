"""One of two threads computes at a time: the step loop goes first, the towers in between.

A tower passes the gate before each of its blocks, so a long clip never holds up a running reply for longer than one block.
Nothing in what is computed changes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class Gate:
    """A lock with precedence for steps."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._busy = False
        self._steps = 0  # steps that wait or run
        self._tower: int | None = None  # the thread that is inside `tower`

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold the gate for one step; waits for the tower's current block at most."""
        with self._turn:
            self._steps += 1
            self._turn.wait_for(lambda: not self._busy)
            self._busy = True
        try:
            yield
        finally:
            with self._turn:
                self._steps -= 1
                self._busy = False
                self._turn.notify_all()

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

    def rest(self) -> None:
        """Let waiting steps run; only inside `tower`."""
        if self._tower == threading.get_ident() and self._steps:
            self._leave()
            self._enter()

    def watch(self, blocks: Iterable[Any]) -> None:
        """Rest before the forward pass of each of these modules."""
        for block in blocks:
            block.register_forward_pre_hook(lambda module, inputs: self.rest())

    def _enter(self) -> None:
        with self._turn:
            self._turn.wait_for(lambda: not self._busy and not self._steps)
            self._busy = True

    def _leave(self) -> None:
        with self._turn:
            self._busy = False
            self._turn.notify_all()
