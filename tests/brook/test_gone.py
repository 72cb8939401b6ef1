"""What Brook says of what its window no longer holds: the stream keeps the words, and the reply says what it saw."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from penstock import Engine, EngineConfig, PenstockError, Request, Window
from penstock.demos.brook import gone
from penstock.demos.brook.gone import GonePaper, GoneScore
from penstock.demos.brook.questions import BrookQuestion
from penstock.demos.brook.sound import Bank
from penstock.demos.film import STORY
from tokenizers import Tokenizer

WORDS = Tokenizer.from_file(str(Path(gone.__file__).parents[2] / "engine" / "brook" / "tokenizer.json"))
MOVED = BrookQuestion("moved", "What moved?", "the red circle moved right.")
START = BrookQuestion("start", "What was there at first?", "a red circle and a yellow square.")
# A circle moves and a square turns blue, with one beep; nothing more happens.
PAPER = GonePaper(
    STORY._replace(seconds=6.0, changes=STORY.changes[:2], sounds=STORY.sounds[:1]), Bank((), half=0), [MOVED, START]
)
NOW = "a red circle and a blue square."


def test_what_was_answered_outlives_its_media_and_the_next_answer_says_that_they_have_left() -> None:
    """And a question asked again is answered from words, from what is there, or not: with no thing that never was."""

    async def work() -> None:
        async with await Engine.load(config=EngineConfig(kv_tokens=2048)) as engine:
            async with await engine.stream(Request(format="turns", window=Window(rows=320))) as stream:
                await gone.show(stream, PAPER, 0.0, 6.0)
                reply = await stream.ask(MOVED.text, gone.GREEDY)
                assert (await reply.text()).strip() == MOVED.answer and reply.since_us is None
                with pytest.raises(PenstockError, match=r"expected 6 s of film to have left the window, got 0 s"):
                    await gone.answers(stream, [MOVED], 6.0)
                await gone.show(stream, PAPER, 6.0, 22.0)
                ids = [id for run in await stream.transcript() if run.seen is None for id in run.ids]
                given = await gone.answers(stream, PAPER.questions, 6.0)
        said = WORDS.decode(ids)
        assert MOVED.text in said and MOVED.answer in said
        assert given[0] in (MOVED.answer, "nothing moved.") and given[1] in (START.answer, NOW, "nothing.")

    asyncio.run(work())


def test_answers_are_counted_by_what_they_are_true_of() -> None:
    score = GoneScore()
    for question, given in ((MOVED, MOVED.answer), (MOVED, "I do not know."), (MOVED, "nothing moved."), (MOVED, NOW)):
        score.add("silent", PAPER, question, MOVED.answer, given)
    for given in (START.answer, NOW, "nothing."):
        score.add("silent", PAPER, START, NOW, given)
    start, moved, every = score.lines()
    assert start == ("silent", "start", 3, 0.0, 1 / 3, 0.0, 1 / 3, 1 / 3)
    assert moved == ("silent", "moved", 4, 1.0, 0.25, 0.25, 0.25, 0.25)
    assert every[:3] == ("silent", "all", 7) and every.right == 2 / 7


def test_each_question_is_about_something_that_has_happened(word_seconds: dict[str, list[float]]) -> None:
    class Voices:
        seconds = word_seconds

    asked = [q for paper in gone.papers(3, 30, Voices()) for q in paper.questions]  # pyright: ignore[reportArgumentType]
    assert {question.kind for question in asked} == set(gone.PAST)
    assert not {question.answer for question in asked} & {*gone.NONE, "I do not know."}
