"""NaN and infinity never become tokens: the input or the stream that they came with ends with an error, alone."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from penstock.engine.command import Accept, Question
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.embeddings import Embeddings, EncodedSpan
from penstock.engine.family import Loaded
from penstock.engine.plan import Draw
from penstock.engine.runner.encoder import Encoder
from penstock.engine.runner.sampler import sample
from penstock.engine.runner.spans import SpanStore
from penstock.errors import NotFiniteError
from penstock.streams.event import ReplyDone, Token
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import ImageSegment

from .driven import Driven
from .rig import _streams

SHORT = SamplingParams(max_tokens=4, ignore_eos=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("draw", [Draw(), Draw(temperature=0.7, top_k=3, seed=5), Draw(said=(1,), repetition=1.2)])
def test_a_row_that_is_not_finite_gives_no_token(bad: float, draw: Draw) -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    logits[1] = bad
    tokens = sample(logits, [draw, draw, draw]).tolist()
    assert tokens[1] == -1 and tokens[0] >= 0 and tokens[2] >= 0


def test_one_value_that_is_not_a_number_is_enough() -> None:
    logits = torch.zeros(1, 50)
    logits[0, 17] = float("nan")
    assert sample(logits, [Draw()]).tolist() == [-1]


def test_a_poisoned_stream_ends_and_its_neighbour_goes_on(omni_loaded: Loaded) -> None:
    driven, other = Driven(omni_loaded), next(_streams)
    driven.pair(1)
    driven.run()
    driven.core.open(other, Request(format="turns"))
    driven.scheduler.apply(Accept(other, Question(1, "Who?", SHORT)))
    page = driven.scheduler.streams[driven.stream].table.pages[0]
    driven.core.language.cache.values[0][page] = float("nan")
    driven.accept(Question(2, "What do you see?", SHORT))
    events, poisoned = [], []
    while (done := driven.core.step()) is not None:
        poisoned += done[1].poisoned
        events += driven.scheduler.events()
    assert poisoned == [driven.stream]
    assert {stream for stream, event in events if isinstance(event, Token)} == {other}
    assert [event.tokens for stream, event in events if isinstance(event, ReplyDone) and stream == other] == [4]
    driven.scheduler.check()


def test_what_a_poisoned_stream_computed_is_found_by_nobody(text_loaded: Loaded) -> None:
    core = Core(text_loaded, EngineConfig(kv_tokens=2048, page_tokens=4, backend="cpu"))
    said = []
    for poison in (True, False):
        stream = next(_streams)
        core.open(stream, Request(format="turns", system="You watch a door."))
        core.text(stream, 1, "Look at the door.")
        core.run()
        if poison:
            core.language.cache.values[0][core.scheduler.streams[stream].table.pages[0]] = float("nan")
        core.ask(stream, 2, "Who?", SHORT)
        said.append(sum(isinstance(event, Token) for _, event in core.run()))
        core.scheduler.check()
    assert said == [0, 4]


def test_an_encoder_that_gives_no_numbers_fails_its_input(omni_loaded: Loaded) -> None:
    towers = omni_loaded.towers

    class Broken:
        rows, times_inside = staticmethod(towers.rows), towers.times_inside

        @staticmethod
        def encode(batch: list) -> list:
            return [EncodedSpan(span, Embeddings(made.rows * float("nan"))) for span, made in towers.encode(batch)]

    segment = ImageSegment(1, 0, np.zeros((56, 56, 3), np.uint8))
    assert Encoder(towers, 0, SpanStore()).encode([(1, segment)])
    with pytest.raises(NotFiniteError, match="not finite numbers for this input"):
        Encoder(cast(Any, Broken()), 0, SpanStore()).encode([(1, segment)])
