"""Models whose layers keep states of all rows (class G): no row can be taken out of a state. So what goes back, comes
back, is copied or is done again has to find the state that belongs to its rows. The reference is one dense pass of the
library over what the cache holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.command import Fork
from penstock.engine.config import EngineConfig
from penstock.engine.conversation import carried as carried_module
from penstock.engine.conversation.carried import Carried
from penstock.engine.core import Core, fit
from penstock.engine.loading import compute
from penstock.engine.loading.draft import with_draft
from penstock.engine.loading.forecast import forecast
from penstock.engine.loading.open import load
from penstock.engine.plan import STATES
from penstock.engine.runner.language import LanguageModel
from penstock.engine.runner.states import States
from penstock.errors import InputError, ModelError, OverloadError
from penstock.streams.event import Token
from penstock.streams.item import Text
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.requests.window import Window

from tests.actors.conftest import House
from tests.actors.watch import ids, most, quiet
from tests.engine.acts import Act, Client, acts, perform
from tests.engine.rig import TOLERANCE, Rig, Session, _streams
from tests.families import stateful
from tests.families.suite import Tried, Watched, opened
from tests.fixtures.adapters import linears, merge, write_adapter


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return opened(stateful.qwen3_5(tmp_path_factory.mktemp("qwen3_5")))


def check(session: Session, logits: torch.Tensor, least: int) -> None:
    """What was drawn for the newest reply is what a dense pass gives."""
    held, _ = session.transcript()
    drawn = {row: draw for row, draw in session.draws.items() if row < len(held)}
    assert len(drawn) >= least
    for row, (token, ours) in drawn.items():
        bound = TOLERANCE * max(1.0, float(logits[row].abs().max()))
        assert float((ours - logits[row]).abs().max()) < bound, f"row {row} of {len(held)}"
        assert token == int(ours.argmax())


def said(tried: Tried, session: Session) -> torch.Tensor:
    """The library's logits of a stream of words alone."""
    tokens, positions = session.transcript()
    with torch.inference_mode():
        return tried.model(input_ids=torch.tensor([tokens]), position_ids=positions[:, None], use_cache=False).logits[0]


@pytest.mark.parametrize("at", [0, 4, 11, None])
@pytest.mark.parametrize("steps", [1, 7])
def test_a_reply_that_is_cut_goes_on_from_what_is_left(
    tried: Tried, monkeypatch: pytest.MonkeyPatch, at: int | None, steps: int
) -> None:
    """Before, inside and behind a picture that was spliced in. Rows of the cut come into no state."""
    watched = Watched(tried, monkeypatch)
    session = watched.rig.open(format="live")
    watched.show(session, "image", 0)
    session.ask("What do you see?", max_tokens=40)
    watched.rig.step(8)
    watched.show(session, "image", 1)
    watched.rig.step(steps + 4)
    session.interrupt(at)
    session.draws.clear()
    session.text("And now something else.")
    session.ask("Well?", max_tokens=12)
    watched.rig.run()
    check(session, watched.logits(session), 12)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_fork_and_its_stream_go_on_apart(tried: Tried, steps: int) -> None:
    rig = Rig(tried.loaded, page_tokens=4, append_rows=7)
    session = rig.open(format="live")
    session.text("I see a red box.")
    session.ask("What do you see?", max_tokens=16)
    rig.step(steps)
    twin = rig.fork(session)
    session.interrupt()
    session.draws.clear()
    session.ask("Who came in?", max_tokens=10)
    twin.text("Hey you, what is it?")
    third = rig.fork(twin)
    third.text("Look.")
    rig.run()
    for one, least in ((session, 10), (twin, 8), (third, 8)):
        check(one, said(tried, one), least)


def test_a_reply_is_drawn_again_from_the_prompt(tried: Tried) -> None:
    rig = Rig(tried.loaded, page_tokens=4)
    request = Request(messages=[{"role": "user", "content": "What do you see, and who came in?"}],
                      params=SamplingParams(max_tokens=8), window=None)  # fmt: skip
    first, again = next(_streams), next(_streams)
    rig.core.open(first, request)
    rig.core.prompt(first, request)
    rig.core.run(5)
    rig.core.scheduler.apply(Fork(first, again, 2, again=SamplingParams(max_tokens=8)))
    told: dict[int, list[int]] = {first: [], again: []}
    for stream, event in rig.core.scheduler.events() + rig.core.run():
        if isinstance(event, Token):
            told[stream].append(event.id)
    assert told[again][-3:] == told[first][-3:] and len(told[again]) == 8


@pytest.mark.parametrize("host_pages", [0, 1 << 10])
def test_streams_that_make_room_for_one_another(tried: Tried, host_pages: int) -> None:
    """Their pages go to host memory and come back, and their states stay; or both are computed once more."""
    rig = Rig(tried.loaded, kv_tokens=160, page_tokens=4, append_rows=16, host_pages=host_pages)
    sessions = [rig.open(format="live") for _ in range(4)]
    for number, session in enumerate(sessions):
        session.text("I see a red box and a blue light. " * (1 + number % 2))
        session.ask("What do you see?", max_tokens=14)
        rig.step(2)
    rig.run()
    assert any(plan.saves for plan in rig.plans) == bool(host_pages)
    for session in sessions:
        check(session, said(tried, session), 14)


def test_streams_of_other_lengths_share_a_step(tried: Tried) -> None:
    """Prompts in chunks beside replies, with as many rows and with others."""
    rig = Rig(tried.loaded, page_tokens=4, step_rows=24, append_rows=9)
    sessions = []
    for number in range(5):
        session = rig.open(format="live")
        session.text("I see a red box and a blue light. " * number + "Look.")
        session.ask("Who came in?", max_tokens=10 + number)
        sessions.append(session)
        rig.step(number)
    rig.run()
    lengths = [[sum(map(len, feed.rows)) for feed in plan.feeds] for plan in rig.plans]
    assert any(len(many) > 3 and len({*many}) > 1 for many in lengths)
    for session in sessions:
        check(session, said(tried, session), 10)


def test_a_step_that_ran_out_of_memory_is_done_again_from_the_same_states(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tried.loaded, page_tokens=4)
    session, other = rig.open(format="live"), rig.open(format="live")
    session.ask("What do you see?", max_tokens=12)
    rig.step(4)
    other.text("I see a red box and a blue light.")
    whole, tries = LanguageModel._read, []

    def once(self: LanguageModel, tokens: torch.Tensor) -> list[int]:
        tries.append(1)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("no room")
        return whole(self, tokens)

    monkeypatch.setattr(LanguageModel, "_read", once)
    rig.step()
    assert len(tries) == 2 and other.stream not in rig.core.scheduler.streams
    rig.run()
    check(session, said(tried, session), 12)


def test_media_that_is_kept_no_longer_bounds_a_cut(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be fed once more stays, and so does what was said before it."""
    monkeypatch.setattr(carried_module, "_APART", 8)
    watched = Watched(tried, monkeypatch, span_bytes=1)
    session = watched.rig.open(format="live")
    watched.show(session, "image", 0)
    session.ask("What do you see?", max_tokens=40)
    for place in (1, 2, 1):
        watched.rig.step(6)
        watched.show(session, "image", place)
    watched.rig.step(6)
    stream = watched.rig.core.scheduler.streams[session.stream]
    carried = stream.carried
    assert carried is not None and carried.lost and not stream.whole
    session.interrupt(1)
    assert session.ends()[-1][1] > 2
    session.draws.clear()
    session.ask("Well?", max_tokens=12)
    watched.rig.run()
    check(session, watched.logits(session), 12)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60)), max_size=30), st.integers(0, 8))
def test_where_states_are_kept(steps: list[tuple[int, int]], open_rows: int) -> None:
    """No state that is read is written in the same step, none is of rows that were cut off, and none is lost sight of.
    So a cut is never far from a state."""
    carried, rows = Carried(1), 0
    for count, back in steps:
        laid = [stateful.plain(rows + count)]
        use = carried.feed(rows, count, count == 1, laid, [0], max(0, rows + count - open_rows))
        rows += count
        written = [entry for _, entry in use.ends]
        assert use.begin not in written and len({*written}) == len(written)
        assert carried.held[-1] == (rows, written[-1]) and use.ends[-1][0] == count
        assert len({*carried.entries}) == len(carried.held) <= STATES - 1
        assert {*carried.entries} <= {*range(STATES, 2 * STATES)}
        if back < rows:
            assert carried.reaches(rows - back)
            rows = carried.back_to(rows - back)
            assert not rows or carried.held[-1][0] == rows


@given(acts("text", "interrupt", most=5), st.integers(0, 9), st.sampled_from([(4, 8192), (4, 128), (16, 256)]))
def test_whatever_a_client_does(tried: Tried, during: list[Act], cut: int, cache: tuple[int, int]) -> None:
    page_tokens, kv_tokens = cache
    rig = Rig(tried.loaded, page_tokens=page_tokens, kv_tokens=kv_tokens, append_rows=7)
    client, other = Client(rig.open(format="live")), Client(rig.open(format="live"))
    for one in (client, other):
        one.do("text", 3)
        one.do("ask", max_tokens=14)
    perform(rig, client, during)
    rig.step(2)
    client.do("interrupt", cut)
    client.session.draws.clear()
    client.do("ask", 1, max_tokens=6)
    rig.run()
    roomy = kv_tokens > 128  # else a stream may be at its end before it says anything
    check(client.session, said(tried, client.session), 6 if roomy else 0)
    check(other.session, said(tried, other.session), 14 if roomy else 0)


def test_a_snapshot_goes_on_in_another_engine(tried: Tried, tmp_path: Path) -> None:
    """In mid-reply; then it is cut, so that a state that was kept comes along too."""
    house = House(tried.loaded, False)

    async def goes_on(stream: Any) -> list[Any]:
        await stream.interrupt(at=3)
        await stream.append(Text("Look."))
        return [await ids(await stream.ask("And now?", most(12)))]

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live", window=None)) as stream:
            reply = await stream.ask("I see a red box and a blue light. What do you see?", most(80))
            tokens = aiter(reply)
            for _ in range(8):
                await anext(tokens)
            await stream.snapshot(tmp_path / "here")
            expected = await goes_on(stream)
            await quiet(engine)
        async with house.engine() as engine, await engine.restore(tmp_path / "here") as again:
            assert await goes_on(again) == expected
            await quiet(engine)

    house.run(work())


def test_what_no_row_can_leave_has_no_window_and_finds_no_pages(tried: Tried) -> None:
    rig = Rig(tried.loaded)
    with pytest.raises(InputError, match="its layers keep a state of all rows"):
        rig.open(window=Window(rows=64))
    rig.open(window=Window())  # the default asks for nothing
    assert not rig.core.scheduler._finding._on
    states = rig.core.language.states
    assert isinstance(states, States) and not rig.core.language.cache.keys[0].numel()


def test_adapters_of_layers_with_states_in_one_batch(tried: Tried, tmp_path: Path) -> None:
    """Rows go through such a layer stream by stream: each gets what its own stream wears."""
    names = linears(tried.model, ("in_proj_qkv", "in_proj_z", "out_proj", "q_proj", "down_proj"), "language_model")
    folders = {str(seed): write_adapter(tmp_path / str(seed), tried.model, names, seed) for seed in (1, 2)}
    rig = Rig(tried.loaded, page_tokens=4, append_rows=7)
    try:
        for name, folder in folders.items():
            rig.core.load_adapter(name, folder)
        sessions = {name: rig.open(format="live", adapter=name) for name in ("1", None, "2")}
        for session in sessions.values():  # as long as one another
            session.ask("What do you see?", max_tokens=10)
        rig.run()
        for name, session in sessions.items():
            model = tried.model if name is None else merge(tried.model, folders[name])
            check(session, said(tried._replace(model=model), session), 10)
        assert len({tuple(session.ids()) for session in sessions.values()}) == 3
    finally:
        rig.core.language.adapters.clear()


def test_tokens_are_not_guessed(tried: Tried) -> None:
    with pytest.raises(ModelError, match="speculative: .* no wrong guess can be taken out of it"):
        with_draft(tried.loaded, EngineConfig(speculative="ngram"), load)


def test_states_are_counted_and_bound_how_many_streams_are_open(
    tried: Tried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan without weights counts the same; a machine with little room holds fewer streams."""
    folder = stateful.qwen3_5(tmp_path)
    states = Rig(tried.loaded).core.language.states
    assert isinstance(states, States)
    entry = sum(tensor[0].nbytes for pool in states.pools.values() for tensor in pool.values())
    memory = fit(tried.loaded, EngineConfig())
    assert (memory.state_bytes, memory.streams) == (STATES * entry, 256)
    planned = forecast(folder, EngineConfig()).memory
    assert (planned.state_bytes, planned.token_bytes) == (memory.state_bytes, memory.token_bytes)
    free = memory.step_bytes + memory.encoder_bytes + 24 * memory.state_bytes
    monkeypatch.setattr(compute, "free_bytes", lambda _: free)
    core = Core(tried.loaded, EngineConfig(kv_tokens=64))
    streams = fit(tried.loaded, EngineConfig(kv_tokens=64)).streams
    assert 2 <= streams < 256 and streams * memory.state_bytes < free
    for _ in range(streams):
        core.open(next(_streams), Request(window=None))
    with pytest.raises(OverloadError, match=f"at most {streams} open streams"):
        core.open(next(_streams), Request(window=None))
    assert core.language.states is not None
    assert len(next(iter(core.language.states.pools[0].values()))) == streams * STATES + 1
    monkeypatch.setattr(compute, "free_bytes", lambda _: 1)
    with pytest.raises(ModelError, match="for the states of one stream"):
        fit(tried.loaded, EngineConfig(kv_tokens=64))
