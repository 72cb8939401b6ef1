"""One thread computes, steps and slices of towers' passes: who waits for whom; what is computed is always the same."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.runner import gate as gates
from penstock.engine.runner.gate import Gate

SECONDS = 20.0


class Actors:
    """Threads that are joined at the end; what one of them raises is raised there."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def __enter__(self) -> Actors:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert not self._errors

    def start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self._errors.append(error)

        self._threads.append(threading.Thread(target=guarded, daemon=True))
        self._threads[-1].start()


def wait(event: threading.Event) -> None:
    assert event.wait(SECONDS)


def await_step(gate: Gate) -> None:
    """Until a step waits at the gate."""
    last = time.monotonic() + SECONDS
    while not gate.steps:
        assert time.monotonic() < last
        time.sleep(0)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.unwatch()
    gate.stop()


def test_step_waits_for_the_current_block_only(gate: Gate) -> None:
    told: list[str] = []
    inside, finish = threading.Event(), threading.Event()

    def tower() -> None:
        told.append("block 1")
        inside.set()
        wait(finish)
        gate.rest()
        told.append("block 2")
        gate.rest()
        told.append("block 3")

    with Actors() as actors:
        actors.start(lambda: gate.compute(tower))
        wait(inside)
        step = gate.step(lambda: told.append("step"))
        assert told == ["block 1"]
        finish.set()
    step.result(SECONDS)
    assert told == ["block 1", "step", "block 2", "block 3"]


def test_tower_never_begins_while_a_step_runs(gate: Gate) -> None:
    told: list[str] = []
    inside, finish = threading.Event(), threading.Event()

    def step() -> None:
        inside.set()
        wait(finish)
        told.append("step")

    with Actors() as actors:
        gate.step(step)
        wait(inside)
        actors.start(lambda: gate.compute(lambda: told.append("block")))
        assert told == []
        finish.set()
    assert told == ["step", "block"]


def test_tower_that_waits_gets_a_block_between_any_two_steps(gate: Gate) -> None:
    """Steps follow each other at once, and yet the tower comes to its end."""
    told: list[str] = []
    over = threading.Event()

    def steps() -> None:
        while not over.is_set():
            gate.step(lambda: told.append("step")).result(SECONDS)

    def tower() -> None:
        for _ in range(50):
            told.append("block")
            await_step(gate)
            gate.rest()
        over.set()

    with Actors() as actors:
        actors.start(steps)
        actors.start(lambda: gate.compute(tower))
    first, last = told.index("block"), len(told) - told[::-1].index("block")
    assert told[first:last] == ["block", "step"] * 49 + ["block"]


Moment = st.floats(0.0, 20.0)
Steps = st.lists(st.tuples(Moment, Moment, st.just(math.inf) | Moment), max_size=12)


@given(st.lists(st.lists(Moment, min_size=1, max_size=8), min_size=1, max_size=3), Steps)
def test_step_waits_no_longer_than_its_patience_and_a_block(
    passes: list[list[float]], steps: list[tuple[float, float, float]]
) -> None:
    """On a clock of its own. Each step is handed in after the end of the one before it and a pause. All that is handed
    in is computed, and no step waits without need."""
    now, gate = 0.0, Gate()
    line: list[tuple[str, float, float]] = []  # what computed, from when to when
    left = [(now + pause, length, patience) for pause, length, patience in steps]
    handed: list[tuple[float, float]] = []  # when, and until when a tower might go on
    ended = 0.0

    def spend(what: str, seconds: float) -> None:
        nonlocal now
        line.append((what, now, now + seconds))
        now += seconds

    def step(length: float) -> None:
        nonlocal ended, left
        spend("step", length)
        ended = now  # before the next is handed in, whose patience counts from here
        left = [(now + pause, length, patience) for (pause, length, patience) in steps[len(handed) :]]
        hand_in()

    def hand_in() -> None:
        if left and left[0][0] <= now and len([one for one in line if one[0] == "step"]) == len(handed):
            _, length, patience = left.pop(0)
            handed.append((now, ended + patience))
            gate.step(partial(step, length), patience)

    def tower(blocks: list[float]) -> None:
        for seconds in blocks:
            gate.rest()
            spend("block", seconds)
            hand_in()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "time", SimpleNamespace(perf_counter=lambda: now))
        for blocks in passes:
            gate.compute(tower, blocks)
        gate.stop()
    assert len(line) == sum(map(len, passes)) + len(handed)
    for (came, until), (place, (_, began, _)) in zip(
        handed, [(place, one) for place, one in enumerate(line) if one[0] == "step"], strict=True
    ):
        waited = [one for one in line[:place] if one[0] == "block" and one[2] > came]
        late = [one for one in waited if one[1] > max(came, until)]
        assert len(late) <= 1, "one block, where the tower had none since the last step"
        assert began == max([came, *(one[2] for one in waited)])


def test_rest_does_nothing_outside_a_tower(gate: Gate) -> None:
    gate.rest()
    gate.step(gate.rest).result(SECONDS)


def test_errors_go_to_whom_they_belong_and_the_thread_goes_on(gate: Gate) -> None:
    def fails() -> None:
        gate.rest()
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            gate.compute(fails)
        with pytest.raises(ZeroDivisionError):
            gate.step(fails).result(SECONDS)
    assert gate.compute(lambda: 1) + gate.step(lambda: 2).result(SECONDS) == 3


def test_tower_fails_half_way_and_the_next_one_passes(gate: Gate) -> None:
    told: list[str] = []

    def tower() -> None:
        gate.step(lambda: told.append("step"))
        gate.rest()
        told.append("block")
        raise MemoryError

    with pytest.raises(MemoryError):
        gate.compute(tower)
    gate.compute(lambda: told.append("next"))
    assert told == ["step", "block", "next"]


def test_failed_pass_holds_no_tensors(gate: Gate) -> None:
    """What ran out of memory is let go of before the next try, not when somebody collects garbage."""
    kept: list[Any] = []

    def tower() -> None:
        features = torch.zeros(4)
        kept.append(weakref.ref(features))
        gate.rest()
        raise torch.OutOfMemoryError

    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            gate.compute(tower)
        gate.step(lambda: None).result(SECONDS)  # the thread has gone on to other things
        assert kept[0]() is None
    finally:
        gc.enable()


def test_step_that_is_called_off_holds_up_nothing(gate: Gate) -> None:
    told: list[str] = []

    def tower() -> None:
        step = gate.step(lambda: told.append("step"))
        assert step.cancel() and not gate.steps
        gate.rest()
        told.append("block")

    gate.compute(tower)
    assert told == ["block"]


def test_stop_waits_for_a_pass_that_is_half_way(gate: Gate) -> None:
    told: list[str] = []
    inside, finish = threading.Event(), threading.Event()

    def tower() -> str:
        told.append("block 1")
        inside.set()
        wait(finish)
        gate.rest()
        told.append("block 2")
        return "whole"

    def encode() -> None:
        told.append(gate.compute(tower))

    with Actors() as actors:
        actors.start(encode)
        wait(inside)
        gate.step(lambda: told.append("step"))
        actors.start(gate.stop)
        finish.set()
    assert sorted(told) == ["block 1", "block 2", "step", "whole"]
    with pytest.raises(RuntimeError):
        gate.compute(lambda: None)
    with pytest.raises(RuntimeError):
        gate.step(lambda: None)
    assert not gate.steps


def modes() -> tuple[bool, ...]:
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")


def test_modes_of_torch_are_each_ones_own(gate: Gate) -> None:
    """A step has the modes that it has without towers, and a tower those without steps. A tower does not give way where
    it has set a mode for some blocks."""
    seen: list[tuple[str, tuple[bool, ...]]] = []

    def told(what: str) -> None:
        seen.append((what, modes()))

    def step() -> None:
        told("step")
        with torch.inference_mode():
            told("inner")

    def tower() -> None:
        with torch.inference_mode():
            told("block")
            gate.step(step)
            gate.rest()
            told("block")
        with torch.autocast("cpu", torch.bfloat16):
            gate.step(step)
            gate.rest()
            told("cast")
        gate.rest()
        told("block")

    with torch.autocast("cpu", torch.bfloat16):  # of another thread
        gate.compute(tower)
    gate.step(lambda: told("step")).result(SECONDS)
    off, on, cast = (True, False, False), (False, True, False), (False, True, True)
    stepped = [("step", off), ("inner", on)]
    assert seen == [("block", on), *stepped, ("block", on), ("cast", cast), *stepped, ("block", on), ("step", off)]
