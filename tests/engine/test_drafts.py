"""A draft model guesses: one that agrees makes steps fewer, and none changes what is said."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.memory import plan_memory, weight_bytes
from penstock.engine.loading.open import load
from penstock.engine.runner.backends import make_backend
from penstock.errors import ModelError
from penstock.streams.event import Token

from tests.fixtures.recipe import model_path

from .acts import COSTLY, Act, Client, acts, perform, strangers
from .guessed import always, config_of
from .rig import Rig
from .test_oracle3 import CACHES


def drafted(loaded: Loaded, noise: float) -> Loaded:
    """With a draft model: the same model, whose output layer is off by so much."""
    draft = loaded
    if noise:
        head = copy.deepcopy(loaded.head)
        torch.manual_seed(0)
        with torch.no_grad():
            head.weight += noise * head.weight.std() * torch.randn_like(head.weight)
        draft = loaded._replace(head=head)
    return loaded._replace(draft=draft)


@COSTLY
@given(
    cache=st.sampled_from(CACHES),
    noise=st.sampled_from([0.0, 0.2, 2.0]),
    before=acts("pair", "sound", "image", "text", most=2),
    steps=st.integers(0, 8),
    one=acts("frame", "pair", "sound", "image", "text", "interrupt", most=3),
    other=acts("pair", "image", "text", most=2),
    others=st.integers(0, 2),
    host_pages=st.sampled_from([0, 1 << 16]),
)
def test_a_dense_forward_says_the_same(
    omni: tuple[Any, Any],
    omni_loaded: Loaded,
    cache: tuple[int, int],
    noise: float,
    before: list[Act],
    steps: int,
    one: list[Act],
    other: list[Act],
    others: int,
    host_pages: int,
) -> None:
    """Forked in mid-reply, with media in it, beside strangers, and preempted."""
    page_tokens, kv_tokens = cache
    with always(4):
        rig = Rig(drafted(omni_loaded, noise), **config_of("same", page_tokens, 2 * kv_tokens, host_pages))
        client = Client(rig.open(format="live"))
        perform(rig, client, before)
        client.do("ask", max_tokens=16)
        beside = strangers(rig, others, 20)
        rig.step(steps)
        twins = []
        if not client.session.story.waiting:
            twins = [Client(rig.fork(client.session))]
            twins[0].shown, twins[0].heard = client.shown, client.heard
            perform(rig, twins[0], other)
        perform(rig, client, one)
        rig.run()
    assert rig.core.scheduler.statistics()["guesses"]
    for each in (client, *twins, *beside):
        assert each.session.check(*omni) == len(each.session.story.tokens())


@pytest.mark.parametrize("params", [{"temperature": 0}, {"temperature": 1.0, "seed": 5, "repetition_penalty": 1.2}])
def test_a_model_that_agrees_is_always_right(text_loaded: Loaded, params: dict[str, Any]) -> None:
    """Drawn, too: it draws with the same seeds. So it has read every row, and each at its place."""
    ids, steps, told = said(drafted(text_loaded, 0.0), "same", params)
    plain, most, _ = said(text_loaded, None, params)
    assert ids == plain and steps * 2 < most
    assert told["guesses"] == told["guesses_right"] > 60


@pytest.mark.parametrize(("rows", "host_pages"), [(240, 0), (240, 1 << 16), (2048, 1 << 16)])
def test_it_knows_what_pages_hold(text_loaded: Loaded, rows: int, host_pages: int) -> None:
    """Forked and preempted, a model that agrees stays right: it reads again what came back to other pages, and pages
    that are copied are copied in its cache too."""
    with always(4):
        rig = Rig(drafted(text_loaded, 0.0), **config_of("same", 16, rows, host_pages))
        session = rig.open(format="turns")
        session.ask("Who is it?", max_tokens=60, ignore_eos=True, temperature=1.0, seed=2)
        rig.step(5)
        twins = [rig.fork(session) for _ in range(3)]
        for number, twin in enumerate(twins[1:]):  # the first goes on in a copy of the page that both are in
            twin.interrupt(number)
            twin.ask("And now?", max_tokens=60, ignore_eos=True)
        rig.run()
    assert [len(twin.ids()) for twin in (session, *twins)] == [60] * 4
    assert any(plan.copies for plan in rig.plans)
    assert any(plan.restores for plan in rig.plans) == (rows == 240 and host_pages > 0)
    told = rig.core.scheduler.statistics()
    assert told["guesses"] == told["guesses_right"] > 60


@pytest.mark.slow
def test_a_model_that_never_agrees_is_asked_less_and_less(text_loaded: Loaded) -> None:
    ids, steps, told = said(drafted(text_loaded, 50.0), "same", {"temperature": 0}, tokens=160)
    assert ids == said(text_loaded, None, {"temperature": 0}, tokens=160)[0]
    assert told["guesses"] < 3 * 160 / 2


def test_it_reads_a_long_prompt_in_parts(text_loaded: Loaded) -> None:
    """Of all streams together no more rows than a step has; and then it guesses."""
    rig = Rig(drafted(text_loaded, 0.0), **config_of("same", 16, 4096), step_rows=64)
    for _ in range(3):
        session = rig.open(format="turns")
        session.text("door " * 300)
        session.ask("Who?", max_tokens=40, ignore_eos=True)
    with always(40):
        rig.run()
    for plan in rig.plans:
        guesses = [feed.guesses for feed in plan.feeds if feed.guesses]
        more = sum(len(one.draws) + sum(len(run) for run in one.unread) for one in guesses)
        assert more + sum(len(run) for feed in plan.feeds for run in feed.rows) <= 64
    read = [sum(len(run) for run in feed.guesses.unread) for plan in rig.plans for feed in plan.feeds if feed.guesses]
    assert max(read) > 50 and sum(read) > 900
    told = rig.core.scheduler.statistics()
    assert told["guesses"] == told["guesses_right"] > 10


def test_memory_counts_the_draft_model(text_loaded: Loaded) -> None:
    config, with_draft = EngineConfig(kv_tokens=1024), drafted(text_loaded, 0.0)
    alone, both = (plan_memory(one, config, make_backend(config, "cpu")) for one in (text_loaded, with_draft))
    assert both.kv_bytes == 2 * alone.kv_bytes
    assert weight_bytes(with_draft) == 2 * weight_bytes(text_loaded)


def test_memory_counts_the_rows_that_are_drawn_from(text_loaded: Loaded) -> None:
    plain = EngineConfig(kv_tokens=1024, slots=8, step_rows=64)
    config = EngineConfig(kv_tokens=1024, slots=8, step_rows=64, speculative="ngram", speculative_tokens=3)
    sizes = [plan_memory(text_loaded, one, make_backend(one, "cpu")).step_bytes for one in (plain, config)]
    wider = EngineConfig(kv_tokens=1024, slots=32, step_rows=64)
    assert sizes[0] < sizes[1] == plan_memory(text_loaded, wider, make_backend(wider, "cpu")).step_bytes


def test_what_cannot_guess_is_refused() -> None:
    text = str(model_path("text"))
    with pytest.raises(ModelError, match="speculative: expected ngram or a model that can be served: nowhere"):
        load(text, EngineConfig(speculative="nowhere"))
    with pytest.raises(ModelError, match="speculative: expected a model with the words of .*: token"):
        load(text, EngineConfig(speculative=str(model_path("llama"))))
    with pytest.raises(ModelError, match="speculative_tokens: expected at least 1, got 0"):
        load(text, EngineConfig(speculative="ngram", speculative_tokens=0))


def test_a_model_with_the_same_words_guesses() -> None:
    """Another architecture, loaded by the engine's option."""
    config = EngineConfig(speculative=str(model_path("qwen3")))
    loaded = load(model_path("text"), config)
    assert loaded.draft is not None and loaded.draft.family.data.name == "qwen3"
    ids, _, told = said(loaded, "qwen3", {"temperature": 0})
    assert ids == said(loaded._replace(draft=None), None, {"temperature": 0})[0] and told["guesses"]


def said(
    loaded: Loaded, kind: str | None, params: dict[str, Any], tokens: int = 40
) -> tuple[list[list[int]], int, dict[str, Any]]:
    """The tokens of three replies at once, the number of steps, and what was guessed."""
    rig = Rig(loaded, **{"page_tokens": 16, "kv_tokens": 2048, "speculative": kind})
    sessions = [rig.open(format="turns") for _ in range(3)]
    for number, session in enumerate(sessions):
        session.ask("What is it? " * number + "Say.", max_tokens=tokens, ignore_eos=True, **params)
    rig.run()
    ids = [[event.id for event in session.of(Token)] for session in sessions]
    return ids, len(rig.plans), rig.core.scheduler.statistics()
