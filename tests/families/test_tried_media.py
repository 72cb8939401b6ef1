"""Families that nobody named, with all kinds of media that they take: one prompt equals the library's `generate`, and
media that comes into a running reply equals a dense pass of the library's model over all that the cache holds."""

from __future__ import annotations

import pytest
import torch

from tests.engine.rig import TOLERANCE
from tests.engine.test_oracle1 import assert_equal, generated
from tests.families.built import BUILDERS, names
from tests.families.suite import MEDIA, RATE, Tried, Watched, asked, by_library, opened, pair

# What the library itself fails at.
LEFT_OUT = {
    "kimi_k25": {"video": "the library's model fails on what its own processor makes of it: RuntimeError: split_with"},
    "nemotron_h_omni": {"video": "in the library's own processing_nemotron_h_omni.py, AttributeError: 'list' object"},
}


@pytest.fixture(scope="module", params=names(whole=False))
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return opened(BUILDERS[request.param].build(tmp_path_factory.mktemp(request.param)))


def test_it_is_of_these_classes(tried: Tried, request: pytest.FixtureRequest) -> None:
    """Measured at load: what may come in pieces, and what has to wait for its clip."""
    name, data = request.node.callspec.params["tried"], tried.loaded.family.data
    assert data.classes == BUILDERS[name].classes
    for kind, why in LEFT_OUT.get(name, {}).items():
        assert why in data.left_out[kind]


def test_one_shot_equals_generate(tried: Tried) -> None:
    for kind in tried.kinds:
        for medium in MEDIA[kind]:
            request, inputs = asked(tried, (kind, medium))
            assert_equal(generated(tried.loaded, request), by_library(tried, inputs))
    if "image" in tried.kinds:
        request, inputs = pair(tried)
        assert_equal(generated(tried.loaded, request), by_library(tried, inputs))


def test_a_stream_lays_what_a_prompt_lays(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ids at the same positions, marks around media and the words behind it too. Frames and sound come here
    at two a second and at 16 kHz; where a prompt has them otherwise, they are others."""
    for kind in tried.streamed:
        if (kind == "video" and tried.towers.video_fps != 2) or (kind == "audio" and tried.towers.rate != RATE):
            continue
        watched = Watched(tried, monkeypatch)
        session = watched.rig.open(positions="transformers")
        watched.show(session, kind, 0)
        session.ask("What do you see?", max_tokens=1)
        watched.rig.run()
        ids, positions = session.transcript()
        _, inputs = asked(tried, (kind, MEDIA[kind][0]))
        known = tried.by_rule(inputs)
        assert ids[: known.shape[1]] == inputs["input_ids"][0].tolist()
        assert torch.equal(torch.as_tensor(positions)[: len(known), : known.shape[1]], known)
        monkeypatch.undo()


def test_media_before_and_in_a_reply_equals_a_dense_pass(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    for kinds in tried.streams:
        watched = Watched(tried, monkeypatch)
        session = watched.rig.open(format="live")
        for kind in kinds:
            watched.show(session, kind, 0)
            watched.rig.step(2)
        session.ask("What do you see?", max_tokens=16)
        watched.rig.step(6)
        for kind in kinds:
            watched.show(session, kind, 1)
            watched.rig.step(2)
        session.text("Well?")
        watched.rig.run()
        logits = watched.logits(session)
        assert len(session.draws) >= 16
        for row, (token, drawn) in session.draws.items():
            bound = TOLERANCE * max(1.0, float(logits[row].abs().max()))
            assert float((drawn - logits[row]).abs().max()) < bound
            assert token == int(drawn.argmax())
        assert {type(segment).__name__ for segment in watched.segments} >= {
            {"image": "ImageSegment", "video": "VideoSegment", "audio": "AudioSegment"}[kind] for kind in kinds
        }
        monkeypatch.undo()


def test_a_stream_beside_others_is_what_it_is_alone(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its pages were taken and given back."""
    for kinds in tried.streams:
        said = []
        for beside in (0, 2):
            watched = Watched(tried, monkeypatch)
            others = [watched.rig.open() for _ in range(beside)]
            session = watched.rig.open()
            for place, kind in enumerate(kinds):
                watched.show(session, kind, 0)
                for number, other in enumerate(others):
                    watched.show(other, kinds[(place + number) % len(kinds)], 1)
            for other in others:
                other.ask("And you?", max_tokens=12)
                watched.rig.step(1)
            session.ask("What do you see?", max_tokens=12)
            watched.rig.run()
            said.append((session.ids(), torch.stack([logits for _, logits in session.draws.values()])))
            monkeypatch.undo()
        assert said[0][0] == said[1][0]
        torch.testing.assert_close(said[0][1], said[1][1], rtol=0, atol=TOLERANCE)
