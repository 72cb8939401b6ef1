"""Towers whose passes are cut into slices: nothing in what they give changes, and each encoder has its own gate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest
import torch
from penstock.actors.thread import WorkThread
from penstock.codecs.decoders import Decoders
from penstock.codecs.limits import DEFAULT_LIMITS
from penstock.engine.family import Loaded
from penstock.engine.runner.encoder import Encoder
from penstock.engine.runner.gate import Gate
from penstock.engine.runner.spans import SpanStore
from penstock.engine.span import Rows, Span
from penstock.streams.requests.options import with_defaults
from penstock.streams.requests.prompt import gather
from penstock.streams.requests.request import Request
from penstock.streams.requests.whole import decoded
from penstock.streams.segment import AudioSegment, ImageSegment, Segment, VideoSegment

from tests.reference.media import frames, picture, sound

from .test_gate import SECONDS, Actors, await_step, gate, wait

__all__ = ["gate"]


class Eager(Gate):
    """Rests only when a step waits: so every block is cut from the next."""

    cuts = 0
    inside = False

    def rest(self) -> None:
        if threading.current_thread().name.startswith("penstock-model") and self.inside:
            await_step(self)
            self.cuts += 1
            super().rest()


def cut(gate: Eager, loaded: Loaded, work: Callable[[], Any]) -> tuple[Any, int]:
    """What `work` gives while steps of the language model run between all blocks, each of which gives what it does
    alone; and how many there were."""
    gate.watch(loaded.towers.blocks)
    layer = loaded.text.layers[0].mlp
    rows = torch.randn(3, loaded.config.hidden_size)
    results: list[Any] = []
    told: list[torch.Tensor] = []
    over = threading.Event()

    def step() -> torch.Tensor:
        with torch.inference_mode():
            return layer(rows)

    def steps() -> None:
        while not over.is_set():
            told.append(gate.step(step).result(SECONDS))

    def encode() -> None:
        gate.inside = True
        try:
            results.append(work())
        finally:
            gate.inside = False
            over.set()

    alone = step()
    with Actors() as actors:
        actors.start(steps)
        actors.start(encode)
    gate.unwatch()
    assert all(torch.equal(one, alone) for one in told)
    return results[0], len(told)


@pytest.fixture
def eager() -> Iterator[Eager]:
    gate = Eager()
    yield gate
    gate.stop()


def kept(store: SpanStore, piece: Span | Rows) -> torch.Tensor:
    """The embeddings of a span, or of a run of media."""
    assert piece.stored is not None
    return store.get(piece.stored).rows


BATCH: list[tuple[int, Segment]] = [
    (900, ImageSegment(1, 0, picture(1, 84, 112))),
    (900, VideoSegment(2, 0, frames(2, 2), 0, 1)),
    (901, ImageSegment(1, 0, picture(3))),
]


def test_encoder_work_that_is_cut_by_steps_equals_uncut(loaded: Loaded, eager: Eager) -> None:
    store = SpanStore()
    whole = Encoder(loaded.towers, 0, store).encode(BATCH)
    encoder = Encoder(loaded.towers, 0, store, eager)
    spans, steps = cut(eager, loaded, lambda: encoder.encode(BATCH))
    assert eager.cuts >= 4 and steps >= eager.cuts
    for one, other in zip(spans, whole, strict=True):
        assert torch.equal(kept(store, one), kept(store, other))
    cuts = eager.cuts
    loaded.towers.encode(BATCH)
    assert eager.cuts == cuts  # the model is left as it was


def test_prompt_that_is_cut_by_steps_equals_uncut(loaded: Loaded, eager: Eager) -> None:
    parts = [{"type": "image", "image": picture(5, 84, 112)}, {"type": "text", "text": "What?"}]
    request = with_defaults(Request(messages=[{"role": "user", "content": parts}]), {}, loaded.family.spec)
    content = decoded(gather(request, DEFAULT_LIMITS), Decoders(DEFAULT_LIMITS, None), loaded.family.spec)
    store = SpanStore()
    whole = Encoder(loaded.towers, 0, store).prompt(content)
    encoder = Encoder(loaded.towers, 0, store, eager)
    prompt, steps = cut(eager, loaded, lambda: encoder.prompt(content))
    assert eager.cuts >= 2 and steps >= eager.cuts
    assert any(run.stored is not None for run in whole.rows)
    assert any(run.stored is not None for run in whole.rows)
    for one, other in zip(prompt.rows, whole.rows, strict=True):
        if one.stored is None or other.stored is None:
            assert one.stored is other.stored
        else:
            assert torch.equal(kept(store, one), kept(store, other))


def test_towers_pass_on_the_thread_that_steps_and_nothing_else_does(loaded: Loaded, gate: Gate) -> None:
    """Resizing and templates take their time beside a step; with what they need of torch they are alone."""
    threads: list[str] = []

    def note(*_: object) -> None:
        threads.append(threading.current_thread().name)

    hook = loaded.towers.blocks[0].register_forward_pre_hook(note)
    encoder = Encoder(loaded.towers, 0, SpanStore(), gate)
    before = torch.get_num_threads()
    thread = WorkThread("penstock-encode")
    torch.set_num_threads(2)
    try:
        pool = thread._pool
        assert pool.submit(torch.get_num_threads).result(SECONDS) == 1
        pool.submit(encoder.encode, BATCH).result(SECONDS)
        assert gate.step(torch.get_num_threads).result(SECONDS) == 2
        assert torch.get_num_threads() == 2
    finally:
        hook.remove()
        thread.stop()
        torch.set_num_threads(before)
    assert len(threads) >= 2 and set(threads) == {"penstock-model_0"}


def test_two_encoders_of_one_model_wait_each_for_its_own_gate(loaded: Loaded) -> None:
    """Whose step runs holds up its own encoder and no other, whichever was made last."""
    pair = [Gate(), Gate()]
    for one in pair:
        one.watch(loaded.towers.blocks)
    encoders = [Encoder(loaded.towers, 0, SpanStore(), gate) for gate in pair]
    for held, other in ((0, 1), (1, 0)):
        done = [threading.Event(), threading.Event()]
        finish = threading.Event()

        def encode(which: int, done: list[threading.Event] = done) -> None:
            encoders[which].encode([(1, ImageSegment(1, 0, picture(which, 84, 56)))])
            done[which].set()

        with Actors() as actors:
            step: Future[None] = pair[held].step(partial(wait, finish))
            for which in (0, 1):
                actors.start(partial(encode, which))
            wait(done[other])
            assert not done[held].wait(0.2)
            finish.set()
            wait(done[held])
        step.result(SECONDS)
    for one in pair:
        one.unwatch()
        one.stop()


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
