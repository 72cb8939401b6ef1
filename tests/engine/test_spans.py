"""The span store: embeddings stay where they were made, are counted, and plans that name them run in another place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.command import Close
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core, make_parts
from penstock.engine.embeddings import Embeddings, joined
from penstock.engine.encoding import decoder, encode
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.plan import Plan
from penstock.engine.runner.spans import SpanStore
from penstock.engine.scheduling.journal import Made, made
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.timeline import Timeline

from tests.fixtures.recipe import model_path
from tests.reference.media import picture

from .acts import Act, Client, acts, perform
from .rig import Rig

SHORT = SamplingParams(max_tokens=4)


class SecondRank:
    """Notes what a scheduler does, and carries its plans out once more from their bytes, over a store of its own."""

    def __init__(self, core: Core, config: EngineConfig) -> None:
        self._store = core.language.spans
        _, self.language = make_parts(core.loaded, config)
        self.entries: list[Any] = []

    def note(self, entry: Any) -> None:
        for one in made(entry, self._store):
            one = decoder(Made).decode(encode(one))
            self.language.spans.add(one.id, one.embeds)


@pytest.mark.parametrize("name", ["omni", "qwen3_vl", "llava_onevision"])
def test_a_second_rank_carries_plans_out_from_their_bytes(name: str) -> None:
    """DeepStack and the rows that close a video are there as well."""
    config = EngineConfig(kv_tokens=1024, backend="cpu")
    core = Core(load(model_path(name), EngineConfig()), config)
    second = core.scheduler.journal = SecondRank(core, config)
    core.open(1, Request(format="turns"))
    content: Any = [{"type": "image", "image": picture(2)}, {"type": "text", "text": "Well?"}]
    core.open(2, Request(messages=[{"role": "user", "content": content}], params=SHORT))
    core.prompt(2, Request(messages=[{"role": "user", "content": content}], params=SHORT))
    timeline = Timeline(core.loaded.family.spec)
    core.append(1, 1, timeline.image(1, picture(1)).segments)
    core.ask(1, 2, "What do you see?", SHORT)
    steps = 0
    while (plan := core.scheduler.plan()) is not None:
        result = core.language.run(plan)
        assert second.language.run(decoder(Plan).decode(encode(plan))) == result
        core.scheduler.commit(plan, result)
        steps += bool(result.tokens)
    assert steps >= SHORT.max_tokens
    for stream in (1, 2):
        core.scheduler.apply(Close(stream, "closed"))
    plan = core.scheduler.plan()
    assert plan is not None and plan.releases and not plan.feeds
    for language in (core.language, second.language):
        language.run(plan)
        assert not language.spans.ids


@given(
    during=acts("pair", "sound", "image", "text", "interrupt", most=6),
    kept=st.sampled_from([0, 1 << 12, 1 << 30]),
    fork=st.booleans(),
)
def test_what_nobody_names_is_let_go(omni_loaded: Loaded, during: list[Act], kept: int, fork: bool) -> None:
    """The rig compares the store with what the streams name; at the end nobody does."""
    rig = Rig(omni_loaded, kv_tokens=2048, span_bytes=kept)
    client = Client(rig.open(format="live"))
    client.do("ask", max_tokens=12)
    perform(rig, client, during)
    rig.run()
    if fork:
        Client(rig.fork(client.session)).do("pair", 1)
        client.session.close()
        rig.run()
    for stream in list(rig.core.scheduler.streams):
        rig.core.scheduler.apply(Close(stream, "closed"))
    rig.core.run()
    assert not rig.core.language.spans.ids and not rig.core.scheduler.kept.bytes


def test_what_comes_for_a_stream_that_has_ended_is_let_go(omni_loaded: Loaded) -> None:
    core = Core(omni_loaded, EngineConfig(kv_tokens=1024, backend="cpu"))
    core.open(1, Request())
    core.scheduler.apply(Close(1, "closed"))
    core.append(1, 1, Timeline(core.loaded.family.spec).image(1, picture(1)).segments)
    assert core.language.spans.ids
    core.run()
    assert not core.language.spans.ids


def test_an_entry_keeps_nothing_but_its_own_rows() -> None:
    store, batch = SpanStore(), torch.randn(100, 4)
    stored = store.put(Embeddings(batch[10:13]))
    assert stored.nbytes == 3 * 16
    assert store.get(stored).rows.untyped_storage().nbytes() == 3 * 16
    assert torch.equal(store.get(stored.part(1, 2)).rows, batch[11:12])
    store.again(stored)
    store.release([(stored.id, 1)])
    assert store.ids == {stored.id}
    store.release([(stored.id, 1)])
    assert not store.ids
    with pytest.raises(KeyError):
        store.get(stored)


def test_sound_beside_pictures_adds_nothing_to_deeper_layers() -> None:
    seen, heard = Embeddings(torch.ones(2, 4), torch.ones(3, 2, 4)), Embeddings(torch.ones(1, 4))
    both = joined([seen, heard])
    assert both.rows.shape == (3, 4) and both.deep is not None
    assert both.deep.shape == (3, 3, 4) and both.deep[:, :2].all() and not both.deep[:, 2].any()
    assert both.row_bytes == 4 * 4 * 4


@pytest.mark.gpu
def test_what_a_step_has_fed_leaves_the_device() -> None:
    config = EngineConfig(device="cuda", kv_tokens=1024)
    core = Core(load(model_path("omni"), config), config)
    for stream in (1, 2):  # the second finds most of it in the cache
        core.open(stream, Request(format="turns"))
        core.append(stream, 1, Timeline(core.loaded.family.spec).image(1, picture(1)).segments)
        core.text(stream, 2, "This is a word. " * 20)
        (run,) = [run for run in core.scheduler.streams[stream].laid if run.stored is not None]
        assert run.stored is not None
        before = core.language.spans.get(run.stored).rows
        assert before.is_cuda
        core.run()
        after = core.language.spans.get(run.stored).rows
        torch.cuda.synchronize()
        assert after.is_pinned() and torch.equal(after, before.cpu())
    assert core.scheduler.streams[2].found > 0
