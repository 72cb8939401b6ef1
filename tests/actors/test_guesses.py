"""An engine that guesses, through its actors: clients are told the same, what it has cost is the same, and what a guess
costs is measured.
"""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.actors.engine import Engine
from penstock.engine.command import GuessCost
from penstock.streams.event import Closed, Token, Usage
from penstock.streams.item import Image
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import Reader, quiet
from tests.reference.media import picture

DRAWN = SamplingParams(max_tokens=40, temperature=0.8, seed=3, ignore_eos=True, logprobs=1)
GREEDY = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)


async def conversation(engine: Engine, number: int) -> tuple[list[Token], Usage]:
    """Two replies with a picture between them: their tokens, and what the stream has cost."""
    stream = await engine.stream(Request(window=None))
    reader = Reader(stream)
    await (await stream.ask(f"{number} What is it?", DRAWN)).text()
    await stream.append(Image(picture(number)))
    await (await stream.ask("And now?", GREEDY)).text()
    await quiet(engine)
    await stream.close()
    await reader.task
    last = reader.events[-1]
    assert isinstance(last, Closed) and last.usage is not None
    return reader.of(Token), last.usage


def test_what_is_told_and_what_it_costs(house: House) -> None:
    """Of two streams at once."""

    async def run(draft: bool) -> tuple[list[tuple[list[Token], Usage]], dict[str, Any]]:
        loaded = house.loaded._replace(draft=house.loaded if draft else None)
        speculative = "itself" if draft else None
        async with house.engine(loaded, speculative=speculative, prefix_cache=False) as engine:
            done = await asyncio.gather(*(conversation(engine, number) for number in range(2)))
            return done, engine.statistics()

    async def work() -> None:
        (before, plain), (after, figures) = await run(False), await run(True)
        for (tokens, usage), (ours, own) in zip(before, after, strict=True):
            assert [(one.id, one.text, one.seen) for one in ours] == [(one.id, one.text, one.seen) for one in tokens]
            assert all(one.logprob is not None for one in ours if one.reply == 1)
            assert (own.rows, own.tokens, own.refed, own.cached) == (usage.rows, usage.tokens, 0, 0)
        assert (plain["guesses"], plain["guesses_right"]) == (0, 0)
        assert figures["guesses"] >= figures["guesses_right"] > 20
        assert figures["usage"]["rows"] == plain["usage"]["rows"]
        assert figures["steps"] < plain["steps"]

    house.run(work())


def test_what_a_guess_costs_is_measured_and_noted(house: House) -> None:
    """As a command between two steps, so that a record repeats what was guessed."""
    notes: list[Any] = []

    class Notes:
        def note(self, entry: Any) -> None:
            notes.append(entry)

    async def work() -> None:
        async with house.engine(house.loaded._replace(draft=house.loaded), speculative="itself") as engine:
            engine._wiring.schedule._scheduler.journal = Notes()
            await conversation(engine, 1)
            costs = [entry.share for entry in notes if isinstance(entry, GuessCost)]
            assert costs and all(cost >= 0.02 for cost in costs)
            assert engine.statistics()["guess_cost"] == costs[-1]
            assert all(cost != before for cost, before in zip(costs[1:], costs, strict=False))

    house.run(work())
