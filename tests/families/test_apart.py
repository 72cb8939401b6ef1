"""Models that are tried, in two halves: the towers in one place, the decoder in another, which is told what was found.
The law: both together are the model, to the bit; and neither has the weights of the other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from penstock.actors.remote import RemoteTowers
from penstock.engine.config import EngineConfig
from penstock.engine.encoding import decoder, encode
from penstock.engine.families.absent import AbsentTowers
from penstock.engine.families.findings import TrialFindings
from penstock.engine.families.tried_towers import TriedTowers
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.loading.towers import LoadedTowers, load_towers
from penstock.engine.remote import ANSWERS, QUESTIONS, RefusedWork, answer
from penstock.errors import ModelError
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import AudioSegment, ImageSegment, Segment, VideoSegment

from tests.engine.test_oracle1 import generated, turn
from tests.families.built import BUILDERS
from tests.families.composed import compose
from tests.families.suite import MEDIA

# Video on three axes of positions; prompts that go in whole.
_EACH_TIME = ("glm4v", "paligemma")
_IN_DECODER = ("chameleon", "phi4_multimodal")
_BUILT = {name: built.build for name, built in BUILDERS.items() if built.classes and name not in _IN_DECODER}
_BUILT["a LLaVA that is tried"] = partial(compose, sight="dinov2", text="qwen2")
NAMES = [name if name in _EACH_TIME else pytest.param(name, marks=pytest.mark.slow) for name in _BUILT]


class Wire:
    """An encoder that is asked as over a connection."""

    url = "ws://here"

    def __init__(self, towers: Any) -> None:
        self._towers = towers

    def ask(self, question: Any) -> Any:
        found = ANSWERS.decode(encode(answer(self._towers, QUESTIONS.decode(encode(question)))))
        assert not isinstance(found, RefusedWork), found
        return found


class Halves(NamedTuple):
    """A model as it is, and in halves. `near`: the decoder, which asks the encoder `far`."""

    whole: Loaded
    far: LoadedTowers
    near: Loaded
    folder: Path


def halves(folder: Path) -> Halves:
    whole, far = load(folder, EngineConfig()), load_towers(folder, EngineConfig())
    found = decoder(TrialFindings).decode(encode(far.findings))
    near = load(folder, EngineConfig(encoder="ws://here"), ask=lambda: found)
    assert isinstance(near.towers, AbsentTowers) and near.towers.fingerprint == far.fingerprint
    line: Any = Wire(far.towers)
    return Halves(whole, far, near._replace(towers=RemoteTowers(near.towers, line, near.device)), folder)


@pytest.fixture(scope="module", params=NAMES)
def split(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Halves:
    return halves(_BUILT[request.param](tmp_path_factory.mktemp(request.param)))


def segments(loaded: Loaded) -> list[Segment]:
    """A piece of each kind that may come in a stream."""
    spec = loaded.family.spec
    found: list[Segment] = []
    if spec.image is not None:
        found += [ImageSegment(1, place, pixels) for place, pixels in enumerate(MEDIA["image"][:2])]
    if spec.video is not None:
        clip = MEDIA["video"][1]
        frames = np.concatenate([clip] * -(-spec.temporal_patch // len(clip)))[: spec.temporal_patch]
        found.append(VideoSegment(1, 5, frames, 500_000, 1_000_000))
    if spec.audio_rate:
        found.append(AudioSegment(1, 6, MEDIA["audio"][0], 0, 0, 0, 0, 700_000))
    return found


def test_spans_and_their_sizes_are_those_of_the_whole_model(split: Halves) -> None:
    whole, near = split.whole, split.near
    assert near.family.data == whole.family.data and near.fingerprint == whole.fingerprint
    for piece in segments(whole):
        assert near.towers.rows(piece) == whole.towers.rows(piece)
        if isinstance(piece, VideoSegment | AudioSegment):
            assert near.towers.takes(piece) == whole.towers.takes(piece)
        ([ours, made], [theirs, own]) = (loaded.towers.encode([(1, piece)])[0] for loaded in (near, whole))
        assert encode(ours) == encode(theirs)
        assert torch.equal(made.rows, own.rows)
        assert (made.deep is None) == (own.deep is None)
        assert made.deep is None or own.deep is None or torch.equal(made.deep, own.deep)


def test_a_prompt_is_answered_as_by_the_whole_model(split: Halves) -> None:
    assert split.whole.family.modalities
    for kind in split.whole.family.modalities:
        messages = [turn((kind, MEDIA[kind][0]), "What do you see?")]
        request = Request(messages=messages, params=SamplingParams(max_tokens=4))
        ours, theirs = generated(split.near, request), generated(split.whole, request)
        assert ours[0] == theirs[0]
        assert all(map(torch.equal, ours[1], theirs[1]))


def test_neither_half_has_the_weights_of_the_other(split: Halves) -> None:
    towers, decoder = split.far.towers, split.near.text
    assert isinstance(towers, TriedTowers) and isinstance(split.near.towers, AbsentTowers)
    layers = getattr(towers.whole.get_decoder(), "layers", ())
    assert all(weight.is_meta for layer in layers for weight in layer.parameters())
    assert not [weight for block in towers.blocks for weight in block.parameters() if weight.is_meta]
    for half in (split.near, load(split.folder, EngineConfig(language_only=True))):
        absent: Any = half.towers
        assert all(weight.is_meta for block in absent.family_towers.blocks for weight in block.parameters())
        assert not [weight for weight in decoder.parameters() if weight.is_meta]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in _IN_DECODER])
def test_towers_in_the_decoder_are_no_half(tmp_path: Path, name: str) -> None:
    folder = BUILDERS[name].build(tmp_path)
    for half in (lambda: load(folder, EngineConfig(language_only=True)), lambda: load_towers(folder, EngineConfig())):
        with pytest.raises(ModelError, match="expected towers beside its decoder"):
            half()
