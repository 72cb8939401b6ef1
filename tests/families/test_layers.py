"""Models whose layers are not all alike: Gemma 4's share keys, have heads of their own sizes and embed words for
themselves, and only those with a window let the rows of a picture see one another. What slides, is moved, copied or
found stays what the library computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.core import fit
from penstock.engine.runner.shapes import layer_shapes
from penstock.streams.event import Error, Evicted
from penstock.streams.requests.window import Window

from tests.engine.rig import TOLERANCE, Rig, Session
from tests.engine.slid import SlidRig
from tests.families.axes import kimi_k25
from tests.families.gemmas import gemma4, gemma4_large
from tests.families.suite import MEDIA, Tried, Watched, opened


@pytest.fixture(scope="module", params=[gemma4, gemma4_large], ids=["small", "large"])
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return opened(request.param(tmp_path_factory.mktemp("gemma4")))


def check(session: Session, logits: torch.Tensor, least: int) -> None:
    """What was drawn is what a dense pass gives."""
    assert len(session.draws) >= least
    for row, (token, drawn) in session.draws.items():
        assert float((drawn - logits[row]).abs().max()) < TOLERANCE * max(1.0, float(logits[row].abs().max()))
        assert token == int(drawn.argmax())


def test_a_layer_that_reads_anothers_keys_takes_no_room(tried: Tried) -> None:
    loaded, shared = tried.loaded, tried.loaded.config.num_kv_shared_layers
    shapes = layer_shapes(loaded.config)
    assert [shape.owner for shape in shapes] == ([0, 1, 0, 1] if shared else [0, 1])
    heads = (2, 2) if shared else (2, 1)
    numbers = 2 * (heads[0] * 16 + heads[1] * 24)
    assert fit(loaded, EngineConfig(kv_tokens=64, page_tokens=16)).token_bytes == 4 * numbers
    cache = Rig(loaded).core.language.cache
    for layer, shape in enumerate(shapes):
        assert cache.keys[layer] is cache.keys[shape.owner] and cache.values[layer] is cache.values[shape.owner]
        assert cache.keys[layer].shape[2:] == (heads[layer % 2], (16, 24)[layer % 2])


def test_rows_for_words_are_not_taken_where_layers_embed_the_words(tried: Tried) -> None:
    taken = tried.loaded.family.spec.rows.ids
    assert ("text" in taken) == (tried.loaded.config.hidden_size_per_layer_input == 0)
    assert "image" in taken or "image" not in tried.towers.plain


def slides(tried: Tried, rows: int) -> None:
    rig = SlidRig(tried.loaded, tried.model, page_tokens=16, kv_tokens=2048)
    session = rig.open(format="turns", window=Window(rows=rows, text_rows=24), system="You watch a door.")
    for turn in range(4):
        session.image(MEDIA["image"][turn % 3])
        session.text("I see a red box and a blue light.")
        rig.step(1)
        session.ask("What do you see?", max_tokens=4, hold=False)
        rig.run()
    assert len(session.of(Evicted)) >= 2 and not session.of(Error)
    assert rig.compared >= 16


def test_it_goes_on_as_the_dense_reference_does_when_rows_leave(tried: Tried) -> None:
    slides(tried, 200)


def test_keys_of_which_the_last_numbers_turn_do_so_when_rows_leave(tmp_path: Path) -> None:
    """Kimi K2.5, whose keys and values are made of one latent row and have other sizes."""
    slides(opened(kimi_k25(tmp_path)), 100)


@pytest.mark.parametrize("host_pages", [0, 1 << 10])
def test_streams_that_make_room_for_one_another(tried: Tried, host_pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages go to host memory and come back; or their rows are computed once more. A fork keeps what it shares."""
    watched = Watched(tried, monkeypatch, kv_tokens=208, append_rows=80, host_pages=host_pages)
    rig = watched.rig
    session = rig.open(format="live")
    watched.show(session, "image", 0)
    session.ask("What do you see?", max_tokens=10)
    rig.step(4)
    others = [rig.fork(session), rig.open(format="live"), rig.open(format="live")]
    for number, other in enumerate(others):
        other.text("I see a red box and a blue light. " * (3 + number))
        other.ask("Who came in?", max_tokens=10)
        rig.step(2)
    rig.run()
    assert any(plan.saves for plan in rig.plans) == bool(host_pages)
    for one in (session, *others):
        held = one.transcript()[0]
        shown, watched.segments = watched.segments, watched.segments[: int(tried.towers.senses["image"].id in held)]
        check(one, watched.logits(one), 8)
        watched.segments = shown


def test_a_prefix_with_a_picture_is_found(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tried, monkeypatch)
    fed: list[Any] = []
    for words in ("What do you see?", "Who came in?"):
        session = watched.rig.open(format="turns", system="You watch a door.")
        watched.show(session, "image", 0)
        session.text("Look.")
        session.ask(words, max_tokens=8)
        before = len(watched.rig.plans)
        watched.rig.run()
        rows = [feed for plan in watched.rig.plans[before:] for feed in plan.feeds if feed.stream == session.stream]
        fed.append(sum(len(run) for feed in rows for run in feed.rows))
        watched.segments = watched.segments[-1:]
        check(session, watched.logits(session), 8)
    assert fed[1] < fed[0] - 40


def test_no_recorded_pass_stands_for_one_in_which_some_layers_alone_look_ahead(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording has one rule for all layers: with it the rows of a picture would see too much in some."""

    class Recorded:
        asked = 0

        def tokens(self, feeds: list[Any]) -> None:
            return None

        def appended(self, batch: Any, embeds: torch.Tensor) -> None:
            self.asked += 1
            assert not (tried.loaded.ahead_in_windows and batch.ahead)

    watched, recorded = Watched(tried, monkeypatch), Recorded()
    monkeypatch.setattr(watched.rig.core.language, "graphs", recorded)
    session = watched.rig.open(format="turns")
    session.ask("What do you see?", max_tokens=2)
    watched.rig.run()
    assert recorded.asked  # words may be recorded
    watched.show(session, "image", 0)
    session.ask("And now?", max_tokens=4)
    watched.rig.run()
    check(session, watched.logits(session), 4)
