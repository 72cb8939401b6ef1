"""The pictures of the formats show what the engine does: their boxes, read from the files, are the transcript."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from pages import ROOT
from penstock.engine.command import Accept, Question
from penstock.engine.config import EngineConfig
from penstock.engine.conversation.reply import ReplyState
from penstock.engine.conversation.rules import What
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.streams.event import Event, Token
from penstock.streams.format import BY_NAME
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import VideoSegment

from tests.fixtures.recipe import model_path

CONFIG = EngineConfig(kv_tokens=1024, backend="reference")
SYSTEM, QUESTIONS = "Watch.", {"question 1": "Who?", "question 2": "And now?"}
B_BEHIND, ASK_BEHIND = 3, 5  # tokens of the first reply that are there when B and question 2 arrive
SILENT_DRAWS = {"per-frame": (5, 8)}  # those that give silence instead of a token


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(model_path("omni"), CONFIG)


def boxes(format: str) -> list[str]:
    """The labels of a format's picture, from left to right, without those that are struck out."""
    text = (ROOT / "docs" / f"format-{format}.svg").read_text()
    return re.findall(r'<text class="box" x="[\d.]+" y="\d+">([^<]+)</text>', text)


def clip(seq: int, second: int) -> VideoSegment:
    pixels = np.random.default_rng(second).integers(0, 255, (2, 56, 56, 3), dtype=np.uint8)
    return VideoSegment(seq, 0, pixels, second * 1_000_000, second * 1_000_000 + 500_000)


def play(core: Core, format: str, words: int) -> list[Event]:
    """The events of the pictures, in `format`; the first reply has at most `words` tokens."""
    core.open(1, Request(format=format, system=SYSTEM, unit_tokens=3))
    b_behind = B_BEHIND - (format == "units")
    core.append(1, 1, [clip(1, 1)])
    core.ask(1, 2, QUESTIONS["question 1"], SamplingParams(max_tokens=words, hold=True))
    # In `interrupt` the model is one token ahead of its client when question 2 comes.
    ahead = int(format == "interrupt")
    events: list[Event] = []
    told = 0
    while core.step() is not None:
        events += [event for _, event in core.scheduler.events()]
        tokens = sum(isinstance(event, Token) for event in events)
        if told == 0 and tokens == b_behind:
            core.append(1, 3, [clip(3, 3), clip(3, 4)] if format == "units" else [clip(3, 3)])
            told = 1
        elif told == 1 and tokens == ASK_BEHIND + ahead:
            params = SamplingParams(max_tokens=3, hold=True)
            question = Question(4, QUESTIONS["question 2"], params, at=ASK_BEHIND - 1, reply=1)
            core.scheduler.apply(Accept(1, question))
            told = 2
        events += [event for _, event in core.scheduler.events()]
    return events


@pytest.mark.parametrize("format", sorted(BY_NAME))
def test_the_boxes_are_the_rows_of_the_cache(loaded: Loaded, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = itertools.count(1)
    silent = SILENT_DRAWS.get(format, ())
    monkeypatch.setattr(ReplyState, "ended_by", lambda reply, id, open: What.SILENCE if next(draws) in silent else None)
    core, family = Core(loaded, CONFIG), loaded.family
    drawn = boxes(format)
    events = play(core, format, words=40 if format in ("per-frame", "units") else 8)
    tokens = {(event.reply, event.index): event.id for event in events if isinstance(event, Token)}
    before, after = family.block_ids["video"]
    place = family.tokenizer.convert_tokens_to_ids(["<|VIDEO|>"])
    wrappers = family.turn_ids
    meaning = {
        "system": family.system_ids(SYSTEM),
        "user": wrappers["user_start"],
        "assistant": wrappers["user_end"] + wrappers["assistant_start"],
        "end": wrappers["assistant_end"],
        "A": [*before, *place * 4, *after],
        "B": [*before, *place * 4, *after],
        "C": [*before, *place * 4, *after],
    } | {name: family.text_ids(text) for name, text in QUESTIONS.items()}
    expected = []
    for label in drawn:
        if label in meaning:
            expected += meaning[label]
        else:
            expected.append(tokens["ab".index(label[0]) + 1, int(label[1:]) - 1])
    expected += wrappers["assistant_end"]  # the last reply has ended too; the picture stops before that
    held = [id for row in core.scheduler.transcript(1) for id in row.ids]
    assert held == expected
