"""Families of class F: rows of a prompt see rows behind them, so that new media would change what is cached. A whole
prompt is what `generate` makes of it, and words may follow; in a stream no media may come."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import pytest
import torch
from penstock.actors.inputs import check_item
from penstock.actors.ports import Facts
from penstock.engine.command import Fork
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.families.together import rule
from penstock.errors import InputError, ModelError
from penstock.streams.item import Image, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.engine.rig import TOLERANCE, Rig
from tests.engine.test_oracle1 import REPLY, assert_equal, generated, turn
from tests.families.built import BUILDERS, names
from tests.families.suite import MEDIA, Tried, asked, by_library, opened, pair

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=names(whole=True))
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return opened(BUILDERS[request.param].build(tmp_path_factory.mktemp(request.param)))


def media(tried: Tried, kind: str) -> list[np.ndarray]:
    """The suite's, of as many frames as the model sees."""
    frames = tried.towers.exact_frames if kind == "video" else None
    return [medium[:frames] for medium in MEDIA[kind]]


class Prompts:
    """Streams of one engine that begin with a prompt, and the logits of what was drawn for each."""

    def __init__(self, tried: Tried, **config: Any) -> None:
        self.core = Core(
            tried.loaded, EngineConfig(**{"kv_tokens": 2048, "backend": "cpu", "page_tokens": 4, **config})
        )
        self.draws: dict[int, list[torch.Tensor]] = {}
        self.moved = 0

    def begin(self, request: Request) -> int:
        number = next(_numbers)
        self.core.open(number, request)
        self.core.prompt(number, request)
        self.draws[number] = []
        return number

    def step(self) -> bool:
        done = self.core.step()
        if done is None:
            return False
        plan, _ = done
        self.moved += len(plan.saves)
        drawing = [feed.stream for feed in plan.feeds if feed.draw is not None]
        for place, stream in enumerate(drawing):
            assert self.core.language.logits is not None
            self.draws[stream].append(self.core.language.logits[place].clone())
        return True

    def run(self) -> None:
        while self.step():
            pass

    def again(self, stream: int) -> torch.Tensor:
        """The logits of a second reply to a prompt, by a twin that goes back to it."""
        twin = next(_numbers)
        self.core.scheduler.apply(Fork(stream, twin, 2, SamplingParams(max_tokens=REPLY).seeded()))
        self.draws[twin] = []
        self.run()
        return torch.stack(self.draws[twin])


def each_alone(tried: Tried, requests: list[Request]) -> tuple[list[list[torch.Tensor]], int]:
    """The logits of each prompt in an engine of its own, and the most rows that one of them has."""
    draws, most = [], 0
    for request in requests:
        prompts = Prompts(tried)
        stream = prompts.begin(request)
        prompts.run()
        draws.append(prompts.draws[stream])
        most = max(most, prompts.core.scheduler.streams[stream].rows)
    return draws, most


def test_it_is_of_these_classes(tried: Tried, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["tried"]
    assert tried.loaded.family.data.classes == BUILDERS[name].classes


def test_one_shot_equals_generate(tried: Tried) -> None:
    for kind in tried.kinds:
        for medium in media(tried, kind):
            request, inputs = asked(tried, (kind, medium))
            assert_equal(generated(tried.loaded, request), by_library(tried, inputs))
    kind = tried.kinds[0]
    if tried.towers.unwritten:
        with pytest.raises(InputError, match=f"messages: expected one {kind}, which this model's processor sets"):
            asked(tried, *((kind, medium) for medium in media(tried, kind)[:2]))
        return
    request, inputs = pair(tried)
    assert_equal(generated(tried.loaded, request), by_library(tried, inputs))


def test_a_prompt_beside_others_is_what_it_is_alone(tried: Tried) -> None:
    """Also where one begins in the midst of other replies, other words follow the same medium, and pages are taken
    away and given back."""
    kind = tried.kinds[0]
    requests = [
        Request(messages=[turn((kind, medium), words)], params=SamplingParams(max_tokens=REPLY))
        for medium in media(tried, kind)[:2]
        for words in ("What do you see?", "What do you hear and what do you see?")
    ]
    alone, most = each_alone(tried, requests)
    prompts = Prompts(tried, kv_tokens=most + most // 2 + 4, prefix_cache=True)
    streams = []
    for request in requests:
        streams.append(prompts.begin(request))
        prompts.step()
    prompts.run()
    assert prompts.moved
    for stream, expected in zip(streams, alone, strict=True):
        torch.testing.assert_close(torch.stack(prompts.draws[stream]), torch.stack(expected), rtol=0, atol=TOLERANCE)


def test_a_second_reply_to_a_prompt_is_the_first_once_more(tried: Tried) -> None:
    """The twin goes back to the prompt, whose rows are fed again as a whole."""
    prompts = Prompts(tried)
    kind = tried.kinds[0]
    stream = prompts.begin(asked(tried, (kind, media(tried, kind)[0]))[0])
    prompts.run()
    torch.testing.assert_close(prompts.again(stream), torch.stack(prompts.draws[stream]), rtol=0, atol=TOLERANCE)


def test_media_in_a_stream_is_refused(tried: Tried) -> None:
    rig, kind = Rig(tried.loaded), tried.kinds[0]
    with pytest.raises(
        InputError, match=f"format: expected turns or interrupt, .* {kind}(, video)? of .* would change what is cached"
    ):
        rig.open(format="live")
    session = rig.open(format="turns")
    picture, frame = MEDIA["image"][0], MEDIA["video"][0][0]
    with pytest.raises(InputError, match=rf"{kind}: expected one of what this model takes \(text\), got {kind}"):
        session.image(picture) if kind == "image" else session.frame(frame, 0)
    said = rf"{kind}: expected it in the request's own prompt \(messages, .*\(class F\), got .* in a stream"
    with pytest.raises(InputError, match=said):
        check_item(Image(picture) if kind == "image" else VideoFrame(frame, 0), cast(Facts, tried.loaded.family.data))


def test_media_that_sees_later_media_over_words_is_told_from_any_other_rule() -> None:
    causal, media = torch.ones(8, 8).tril().bool(), np.array([0, 1, 1, 0, 1, 1, 0, 0], bool)
    marked = torch.tensor([True, True, True, False, True, True, True, False])  # with a mark of each before or behind it
    with pytest.raises(ModelError, match="its rows see later rows of media, over the words that stand between them"):
        rule(causal | (marked[:, None] & marked), media)
    first = torch.arange(8) < 3
    with pytest.raises(ModelError, match="neither those of one medium nor of all nor all rows"):
        rule(causal | (first[:, None] & marked), media)
