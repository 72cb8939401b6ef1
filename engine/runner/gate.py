"""One thread computes: the steps of the language model and, between them, slices of the towers' passes.

A tower's pass is a greenlet on that thread. Before each of the tower's blocks it may give way to a step that waits, and
goes on after it. So a long clip never holds up a running reply for longer than a slice and one block, and a reply never
holds up media for good. Nothing in what is computed changes.

It is one thread because torch keeps a pool of OpenMP threads for each thread that computes. With two of these pools
there are more threads than cores, and every parallel loop takes longer, even while one of the pools is idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, ParamSpec, TypeVar

import torch
from greenlet import getcurrent, greenlet

from .lora import carried
from .threads import Crew, compute_with

P = ParamSpec("P")
R = TypeVar("R")

_GATE: ContextVar[Gate | None] = ContextVar("gate", default=None)


def tower_pass(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `work`, one pass of a tower, through the gate of the encoder in whose call this is, and wait for what it
    gives or raises. What prepares the pass stays outside. Where there is no gate it is called here. What is worn here
    is worn in the pass."""
    gate = _GATE.get()
    return work(*args, **kwargs) if gate is None else gate.compute(carried(work), *args, **kwargs)


class Gate:
    """The thread of one engine that computes. `device`: where. Steps and passes come from other threads. `crew`: how
    many threads torch has for it; None: as many as it has."""

    def __init__(
        self, name: str = "penstock-model", device: torch.device | None = None, crew: Crew | None = None
    ) -> None:
        # First come, first served: a pass that gives way goes to the end of the queue, after the step that waits.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._cuda = device is not None and device.type == "cuda"
        self._waiting: list[float] = []  # the patience of each step that waits
        self._ended = 0.0  # when the last step ended
        self.pass_seconds = 0.0  # how long the slices of all passes have taken
        self._counted = 0.0  # up to when
        self._pass: greenlet | None = None  # what computes now, if it is a slice
        self._state: tuple[Any, ...] = ()  # of torch in this thread, when the slice began
        self._stopping = False
        self._hooks: list[Any] = []
        self._crew = crew

    @property
    def steps(self) -> int:
        """Steps that wait."""
        return len(self._waiting)

    def step(self, work: Callable[[], R], patience: float = 0.0) -> Future[R]:
        """Call `work` as a step; a cancelled future is not called any more.

        A pass may go on until `patience` seconds after the end of the step before, and has at least one block between
        two steps. `math.inf`: it may go on to its end.
        """

        def call() -> R:
            self._waiting.remove(patience)
            begun = time.perf_counter()
            try:
                return work()
            finally:
                self._ended = time.perf_counter()
                self._computed(self._ended - begun)

        self._waiting.append(patience)
        try:
            future = self._pool.submit(call)
        except RuntimeError:
            self._waiting.remove(patience)
            raise
        future.add_done_callback(lambda future: self._waiting.remove(patience) if future.cancelled() else None)
        return future

    def compute(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `work` as the pass of a tower, in slices; wait for what it gives or raises. Not to be called in a step.

        It runs in torch's inference mode.
        """
        future: Future[R] = Future()
        self._pool.submit(self._begin, partial(_run, future, partial(self._whole, partial(work, *args, **kwargs))))
        try:
            return future.result()
        finally:
            del future  # an error's traceback holds this frame: it would hold itself, and with it the pass's tensors

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Inside, `tower_pass` is of this gate: towers may serve several engines, each with a gate of its own."""
        before = _GATE.set(self)
        try:
            yield
        finally:
            _GATE.reset(before)

    def rest(self) -> None:
        """Give way to a step whose patience is over; only inside a pass of this gate, elsewhere nothing happens.

        Nor where the tower has changed torch's settings for this thread: the step would compute under them.
        """
        tower = getcurrent()
        if tower is self._pass and tower.parent and self._is_awaited() and _state() == self._state:
            tower.parent.switch()

    def watch(self, blocks: Iterable[Any]) -> None:
        """Rest before the forward pass of each of these modules."""
        self._hooks += [block.register_forward_pre_hook(lambda module, inputs: self.rest()) for block in blocks]

    def unwatch(self) -> None:
        """Leave the modules as they were."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def stop(self) -> None:
        """Wait for the steps and passes that have been handed in; after it there are no others."""
        self._stopping = True
        self._pool.shutdown(wait=True)

    def _begin(self, run: Callable[[], None]) -> None:
        """A greenlet belongs to the thread that makes it."""
        self._go_on(greenlet(run))

    def _go_on(self, tower: greenlet) -> None:
        """One slice of a pass. The modes of torch are those of this thread; they end with the slice, for the step."""
        begun = self._counted = time.perf_counter()
        with torch.inference_mode():
            self._pass, self._state = tower, _state()
            tower.switch()
            self._pass = None
        self._count()
        self._computed(self._counted - begun)
        if not tower.dead:
            try:
                self._pool.submit(self._go_on, tower)
            except RuntimeError:  # stopped meanwhile
                self._go_on(tower)

    def _whole(self, work: Callable[[], R]) -> R:
        """A whole pass; its time is counted before anybody is told that it has ended."""
        try:
            return work()
        finally:
            self._count()

    def _count(self) -> None:
        """The pass that runs has taken the time since it was counted last."""
        now = time.perf_counter()
        self.pass_seconds += now - self._counted
        self._counted = now

    def _computed(self, seconds: float) -> None:
        """So long a step or a slice took. Never while one is at work: its layers keep their threads."""
        if self._crew is not None and self._crew.computed(seconds):
            compute_with(self._crew.count)

    def _is_awaited(self) -> bool:
        if not self._waiting or self._stopping:
            return False
        if self._cuda:  # what was launched is not yet computed
            torch.cuda.current_stream().synchronize()
        return time.perf_counter() >= self._ended + min(self._waiting)


def _run(future: Future[R], work: Callable[[], R]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # raised where it is waited for
        future.set_exception(error)
        del future  # as in `compute`


def _state() -> tuple[Any, ...]:
    """What torch keeps for each thread and a module may change for its blocks."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch.get_default_dtype(),
    )
