"""The gate between steps and towers: who waits for whom, and that nothing that is computed changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from penstock.engine.family import Loaded
from penstock.engine.runner.encoder import Encoder
from penstock.engine.runner.gate import Gate
from penstock.engine.runner.spans import SpanStore
from penstock.streams.segment import AudioSegment, ImageSegment, Segment, VideoSegment

from tests.reference.media import frames, picture, sound

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


def test_step_waits_for_the_current_block_only() -> None:
    gate = Gate()
    told: list[str] = []
    inside, finish = threading.Event(), threading.Event()

    def tower() -> None:
        with gate.tower():
            told.append("block 1")
            inside.set()
            wait(finish)
            gate.rest()
            told.append("block 2")
            gate.rest()
            told.append("block 3")

    def step() -> None:
        with gate.step():
            told.append("step")

    with Actors() as actors:
        actors.start(tower)
        wait(inside)
        actors.start(step)
        await_step(gate)
        assert told == ["block 1"]
        finish.set()
    assert told == ["block 1", "step", "block 2", "block 3"]


def test_tower_never_begins_while_a_step_waits_or_runs() -> None:
    gate = Gate()
    told: list[str] = []
    inside, finish = threading.Event(), threading.Event()

    def step() -> None:
        with gate.step():
            inside.set()
            wait(finish)
            told.append("step")

    def tower() -> None:
        with gate.tower():
            told.append("block")

    with Actors() as actors:
        actors.start(step)
        wait(inside)
        actors.start(tower)
        assert told == []
        finish.set()
    assert told == ["step", "block"]


def test_tower_that_waits_gets_a_block_between_any_two_steps() -> None:
    """Steps follow each other at once, and yet the tower comes to its end."""
    gate = Gate()
    told: list[str] = []
    over = threading.Event()

    def steps() -> None:
        while not over.is_set():
            with gate.step():
                told.append("step")

    def tower() -> None:
        with gate.tower():
            for _ in range(50):
                told.append("block")
                await_step(gate)
                gate.rest()
        over.set()

    with Actors() as actors:
        actors.start(steps)
        actors.start(tower)
    first, last = told.index("block"), len(told) - told[::-1].index("block")
    assert told[first:last] == ["block", "step"] * 49 + ["block"]


def test_rest_does_nothing_outside_a_tower() -> None:
    gate = Gate()
    gate.rest()
    with gate.step():
        gate.rest()


def test_gate_is_free_after_an_error_inside() -> None:
    gate = Gate()
    for hold in (gate.step, gate.tower):
        with pytest.raises(ZeroDivisionError), hold():
            raise ZeroDivisionError
    with gate.tower():
        gate.rest()
    with gate.step():
        pass


class Eager(Gate):
    """Rests only when a step waits: so every block is cut from the next."""

    cuts = 0

    def rest(self) -> None:
        await_step(self)
        self.cuts += 1
        super().rest()


def test_encoder_work_that_is_cut_by_steps_equals_uncut(loaded: Loaded) -> None:
    batch: list[tuple[int, Segment]] = [
        (900, ImageSegment(1, 0, picture(1, 84, 112))),
        (900, VideoSegment(2, 0, frames(2, 2), 0, 1)),
        (901, ImageSegment(1, 0, picture(3))),
    ]
    whole = loaded.towers.encode(batch)
    gate, over = Eager(), threading.Event()
    told: list[str] = []
    spans = []
    gate.watch(loaded.towers.blocks)

    def steps() -> None:
        while not over.is_set():
            with gate.step():
                told.append("step")

    def tower() -> None:
        try:
            with gate.tower():
                spans.extend(loaded.towers.encode(batch))
        finally:
            over.set()

    with Actors() as actors:
        actors.start(steps)
        actors.start(tower)
    gate.unwatch()
    assert gate.cuts >= 4 and len(told) >= gate.cuts
    assert all(torch.equal(cut.embeds.rows, uncut.embeds.rows) for cut, uncut in zip(spans, whole, strict=True))
    cuts = gate.cuts
    loaded.towers.encode(batch)
    assert gate.cuts == cuts  # the model is left as it was


def test_two_encoders_of_one_model_wait_each_for_its_own_gate(loaded: Loaded) -> None:
    """Whose steps run holds up its own encoder and no other, whichever was made last."""
    gates = [Gate(), Gate()]
    encoders = [Encoder(loaded.towers, 0, SpanStore(), gate) for gate in gates]
    for held, other in ((0, 1), (1, 0)):
        done = [threading.Event(), threading.Event()]

        def encode(which: int, done: list[threading.Event] = done) -> None:
            encoders[which].encode([(1, ImageSegment(1, 0, picture(which, 84, 56)))])
            done[which].set()

        with Actors() as actors:
            with gates[held].step():
                for which in (0, 1):
                    actors.start(partial(encode, which))
                wait(done[other])
                assert not done[held].wait(0.2)
            wait(done[held])


def test_two_encoders_of_one_model_do_not_hear_one_anothers_streams(loaded: Loaded) -> None:
    """How loud a stream has been sets the floor of its sound."""
    quiet = AudioSegment(2, 0, sound(1, 2.0, loudness=0.001), 0, 200, 1, 0, 2_000_000)
    store = SpanStore()
    third, first, second = (Encoder(loaded.towers, 0, store) for _ in range(3))

    def heard(encoder: Encoder) -> torch.Tensor:
        (span,) = encoder.encode([(1, quiet)])
        assert span.stored is not None
        return store.get(span.stored).rows

    alone = heard(third)
    first.encode([(1, AudioSegment(1, 0, sound(2, 2.0, loudness=1.0), 0, 200, 1, 0, 2_000_000))])
    assert torch.equal(heard(second), alone)
    assert not torch.equal(heard(first), alone), "the same stream has heard more"
    first.forget(1)
    assert torch.equal(heard(first), alone)
