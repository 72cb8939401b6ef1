"""Long words of one stream hold up no other: their ids are found beside the scheduler, and are the same."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest
from penstock.engine.command import Question, Spelt, TextInput
from penstock.engine.conversation import layout
from penstock.engine.conversation.layout import _LONG
from penstock.engine.family import Loaded
from penstock.engine.scheduling.journal import Journal, replay
from penstock.engine.scheduling.scheduler import Scheduler
from penstock.errors import InputError
from penstock.streams.event import Error, ReplyStarted
from penstock.streams.item import Text
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import ids, most, shots
from tests.engine.driven import Driven

LONG = "door " * (_LONG // 5 + 400)


class Held:
    """A tokenizer that stands still at long texts until it is let go."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        spelling = house.loaded.family.spelling
        spell = spelling.ids

        def slow(text: str, behind: bool = False) -> list[int]:
            if len(text) > _LONG:
                assert self.go.wait(30)
            return spell(text, behind)

        monkeypatch.setattr(spelling, "ids", slow)


@pytest.mark.parametrize("how", ["question", "words", "words before a picture", "system"])
def test_a_bystander_goes_on_while_long_words_are_cut(house: House, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    async def work() -> None:
        held = Held(house, monkeypatch)
        system = LONG if how == "system" else None
        async with house.engine(kv_tokens=16384) as engine:
            async with await engine.stream() as other, await engine.stream(Request(system=system)) as stream:
                if how.startswith("words"):
                    await stream.append(Text(LONG))
                if how == "words before a picture":
                    for frame in shots(1, 2):
                        await stream.append(frame)
                asked = asyncio.create_task(stream.ask(LONG if how == "question" else "Well?", most(4)))
                for _ in range(3):
                    assert len(await ids(await other.ask("And you?", most(30)))) == 30
                assert not asked.done()
                held.go.set()
                assert len(await ids(await asked)) == 4

    house.run(work())


def test_a_stream_may_be_closed_meanwhile(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        held = Held(house, monkeypatch)
        async with house.engine(kv_tokens=16384) as engine:
            stream = await engine.stream()
            await stream.append(Text(LONG))
            asyncio.get_running_loop().call_later(0.05, held.go.set)
            await stream.close()
            async with await engine.stream() as other:
                assert len(await ids(await other.ask("And you?", most(4)))) == 4

    house.run(work())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are long from 200 characters on."""
    monkeypatch.setattr(layout, "_LONG", 200)
    monkeypatch.setattr(layout, "_KEPT", 50)


def told(driven: Driven, apart: bool) -> list[Any]:
    """Words, media and a question; where ids are found apart, each as late as can be."""
    if apart:
        driven.scheduler.config = msgspec.structs.replace(driven.scheduler.config, spell_apart=True)
        driven.stream = driven.stream + 1000
        driven.core.open(driven.stream, driven.request)
    long, wordless = "door " * 60, "a" * 250  # the second has no space at which it could be cut
    driven.accept(TextInput(1, long), TextInput(2, wordless))
    driven.pair(3)
    driven.accept(Question(4, long, SamplingParams(max_tokens=4, ignore_eos=True)))
    for _ in range(40):
        driven.run()
        for stream, wanted in driven.scheduler.unspelled():
            found = driven.core.scheduler.family.spelling.ids(wanted.text, wanted.behind)
            driven.scheduler.apply(Spelt(stream, wanted.text, wanted.behind, found))
    assert [event.seq for event in driven.of(ReplyStarted)] == [4] and not driven.of(Error)
    return [(run.row, run.ids, run.positions) for run in driven.scheduler.transcript(driven.stream)]


def flat(rows: list[Any]) -> list[int]:
    return [id for _, ids, _ in rows for id in ids]


def test_the_rows_are_the_same(loaded: Loaded, short: None) -> None:
    assert flat(told(Driven(loaded), True)) == flat(told(Driven(loaded), False))


def test_a_run_with_long_words_is_replayed(loaded: Loaded, short: None) -> None:
    """The journal holds when the ids came."""
    driven = Driven(loaded)
    journal = driven.scheduler.journal = Journal(driven.core.language.spans)
    rows = told(driven, True)
    again = Driven(loaded)
    scheduler: Scheduler = again.scheduler
    scheduler.config = msgspec.structs.replace(scheduler.config, spell_apart=True)
    assert all(one.result == one.entry for one in replay(journal.entries, scheduler, again.core.language) if one.result)
    assert [(run.row, run.ids, run.positions) for run in scheduler.transcript(driven.stream)] == rows


def test_words_that_the_tokenizer_refuses_are_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        spelling = house.loaded.family.spelling
        spell = spelling.ids

        def refuses(text: str, behind: bool = False) -> list[int]:
            if len(text) > _LONG:
                raise InputError("words: not these")
            return spell(text, behind)

        monkeypatch.setattr(spelling, "ids", refuses)
        async with house.engine(kv_tokens=16384) as engine, await engine.stream() as stream:
            with pytest.raises(InputError, match="not these"):
                await stream.ask(LONG, most(4))
            assert len(await ids(await stream.ask("Well?", most(4)))) == 4

    house.run(work())
