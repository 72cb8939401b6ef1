"""A trained model over keys and values in eight bits: Brook says word for word what it says otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from penstock.demos.brook.draw import Painter
from penstock.demos.brook.senses import SIDE
from penstock.demos.film import STORY
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.loading.open import load
from penstock.streams.event import Token
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import VideoSegment

# Error of the logits, root mean square in standard deviations. Computing in bfloat16 costs 0.0065.
COSTS = {"int8": 0.005, "fp8": 0.02}


def answers(kv_dtype: str) -> tuple[list[str], torch.Tensor]:
    """What Brook says of four pairs of frames, and the logits that it was drawn from."""
    core = Core(load(None, EngineConfig()), EngineConfig(kv_tokens=2048, kv_dtype=kv_dtype))
    core.open(1, Request(format="turns"))
    painter = Painter(STORY, SIDE)
    frames = [painter.picture(number / 2) for number in range(8)]
    for pair in range(4):
        pixels = np.stack(frames[2 * pair : 2 * pair + 2])
        core.append(1, pair + 1, [VideoSegment(pair + 1, 0, pixels, pair * 1_000_000, pair * 1_000_000 + 500_000)])
    said, logits = [], []
    for seq, question in enumerate(("What do you see?", "Where is the circle?", "What moved?"), 10):
        core.ask(1, seq, question, SamplingParams(max_tokens=40))
        while (done := core.step()) is not None:
            if done[1].tokens:
                assert core.language.logits is not None
                logits.append(core.language.logits[0].clone())
        said.append("".join(event.text for _, event in core.scheduler.events() if isinstance(event, Token)))
    return said, torch.stack(logits)


@pytest.fixture(scope="module")
def exact() -> tuple[list[str], torch.Tensor]:
    return answers("auto")


@pytest.mark.parametrize("kv_dtype", COSTS)
def test_brook_says_the_same(exact: tuple[list[str], torch.Tensor], kv_dtype: str) -> None:
    (expected, floats), (said, narrow) = exact, answers(kv_dtype)
    assert said == expected and "red circle" in said[0]
    assert narrow.shape == floats.shape
    assert 0 < float((narrow - floats).pow(2).mean().sqrt() / floats.std()) < COSTS[kv_dtype]
