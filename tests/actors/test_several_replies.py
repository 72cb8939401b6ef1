"""Several replies to one prompt: each is what it would be alone, and the prompt is computed and kept once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.plan import Plan
from penstock.errors import InputError, OverloadError
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import cancelled, until
from tests.fixtures.recipe import model_path
from tests.reference.media import picture

LONG = "What do you see? " * 40


def asked(**params: Any) -> Request:
    content = [{"type": "image", "image": picture(1, 100, 70)}, {"type": "text", "text": LONG}]
    return Request(messages=[{"role": "user", "content": content}], params=SamplingParams(**params))


def test_greedy_replies_are_equal(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine:
            request = asked(max_tokens=8)
            assert await engine.generate_all(request, 3) == [await engine.generate(request)] * 3

    house.run(work())


def test_drawn_replies_are_those_of_single_runs(house: House) -> None:
    params: dict[str, Any] = {"max_tokens": 10, "temperature": 1.0, "presence_penalty": 0.5}

    async def work() -> None:
        async with house.engine() as engine:
            texts = await engine.generate_all(asked(), 4, SamplingParams(seed=11, **params))
            alone = [await engine.generate(asked(), SamplingParams(seed=seed, **params)) for seed in (11, 12, 13, 14)]
            assert texts == alone and len(set(texts)) > 1
            assert await engine.generate_all(asked(), 1, SamplingParams(seed=11, **params)) == alone[:1]

    house.run(work())


def test_without_a_seed_they_are_others_each_time(house: House) -> None:
    """Of one prompt, of a prompt asked again, and of a question in a stream."""
    params = SamplingParams(max_tokens=16, temperature=2.0)

    async def work() -> None:
        async with house.engine() as engine:
            texts = [*await engine.generate_all(asked(), 3, params), *await engine.generate_all(asked(), 3, params)]
            assert len(set(texts)) == 6
            said = []
            for _ in range(2):
                async with await engine.stream(Request(format="turns")) as stream:
                    said.append(await (await stream.ask("What do you see?", params)).text())
            assert said[0] != said[1]

    house.run(work())


def test_replies_of_one_token_and_prompts_that_end_in_a_picture(house: House) -> None:
    """The first reply may be over before the others begin; rows that see one another are fed once more together."""
    gemma = load(model_path("gemma3"), EngineConfig())

    async def same(engine: Engine, request: Request) -> None:
        assert await engine.generate_all(request, 3) == [await engine.generate(request)] * 3

    async def work() -> None:
        async with house.engine() as engine:
            await same(engine, asked(max_tokens=1))
        async with house.engine(gemma) as engine:
            token = gemma.towers.processor.boi_token  # type: ignore[attr-defined]
            params = SamplingParams(max_tokens=6)
            await same(engine, Request(prompt=f"Look: {token}", media=[picture(1)], params=params))

    house.run(work())


def test_a_model_that_is_trained_for_live_ends_a_reply_too(house: House) -> None:
    """No media will come, so the reply is not held open."""
    brook = load(None, EngineConfig())
    request = Request(messages=[{"role": "user", "content": "What do you see?"}])

    async def work() -> None:
        async with house.engine(brook) as engine:
            async with await engine.stream(request) as stream:
                assert stream.format == "live"
            text = await engine.generate(request)
            assert text and await engine.generate_all(request, 2) == [text] * 2

    house.run(work())


def test_the_prompt_is_computed_and_kept_once(house: House, loaded: Loaded) -> None:
    plans: list[Plan] = []
    most = [0]

    def watch(mailbox: str, lane: str, message: Any) -> None:
        if isinstance(message, Plan):
            plans.append(message)
            most[0] = max(most[0], engines[0].statistics()["pages"] - engines[0].statistics()["pages_free"])

    engines: list[Engine] = []

    async def used(n: int) -> tuple[int, int]:
        """The most pages that were held, and how many rows were fed."""
        plans.clear()
        most[0] = 0
        async with house.engine(observer=watch, page_tokens=16) as engine:
            engines[:] = [engine]
            assert len(await engine.generate_all(asked(max_tokens=4), n)) == n
        return most[0], sum(len(run) for plan in plans for feed in plan.feeds for run in feed.rows)

    async def work() -> None:
        pages, rows = await used(1)
        many, fed = await used(5)
        assert pages > 10
        assert pages < many <= pages + 4 * 2  # each twin: a copy of the last page, and perhaps a new one
        assert rows > 200 and fed <= rows + 4 * 10  # each twin: the prompt's last row, its tokens and its turn's end

    house.run(work())


def test_what_cannot_be_is_refused_and_nothing_is_left(house: House) -> None:
    async def work() -> None:
        async with house.engine(slots=3) as engine:
            with pytest.raises(InputError, match="n: expected at least 1, got 0"):
                await engine.generate_all(asked(), 0)
            with pytest.raises(InputError, match="expected a request with messages or a prompt"):
                await engine.generate_all(Request(), 2)
            with pytest.raises(OverloadError, match="expected at most 3 open streams"):
                await engine.generate_all(asked(max_tokens=4), 5)
            call = asyncio.create_task(engine.generate_all(asked(max_tokens=400), 3))
            await until(lambda: engine.statistics()["streams"] == 3)
            assert await cancelled(call)
            assert len(await engine.generate_all(asked(max_tokens=4), 3)) == 3

    house.run(work())
