"""What streams and prompts of one engine begin with alike is computed once, and their clients are told how much."""

from __future__ import annotations

from typing import Any

from penstock.actors.engine import Engine
from penstock.streams.event import ReplyDone
from penstock.streams.item import Image
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import Reader
from tests.reference.media import picture

SYSTEM = "You watch a door, and say who comes and who goes, and nothing else at all. " * 3
PARAMS = SamplingParams(max_tokens=6)


async def shown(engine: Engine, question: str, **request: Any) -> tuple[str, int]:
    """The reply of a new stream that is shown a picture, and how many rows it did not compute."""
    async with await engine.stream(Request(system=SYSTEM, format="turns", **request)) as stream:
        reader = Reader(stream)
        await stream.append(Image(picture(1, 112, 112)))
        text = await (await stream.ask(question, PARAMS)).text()
        (done,) = await reader.see(ReplyDone)
    return text, done.cached


def test_streams_that_begin_alike(house: House) -> None:
    async def work() -> None:
        async with house.engine(page_tokens=16) as engine:
            first = await shown(engine, "Who?")
            again = await shown(engine, "Who?")
            assert first[1] == 0 and again[1] > 16 * 3 and first[0] == again[0]
            salted = [await shown(engine, "Who?", cache_salt=salt) for salt in "aab"]
            assert salted[0][1] == salted[2][1] == 0 and salted[1][1] > 16 * 3
            figures = engine.statistics()
            assert figures["prefix_hits"] == again[1] + salted[1][1] < figures["prefix_queries"]
            assert figures["prefix_pages"] == figures["prefix_pages_idle"] > 3
        async with house.engine(page_tokens=16, prefix_cache=False) as engine:
            assert [await shown(engine, "Who?") for _ in range(2)] == [(first[0], 0)] * 2
            assert engine.statistics()["prefix_pages"] == 0

    house.run(work())


def test_prompts_that_begin_alike(house: House) -> None:
    def request(question: str) -> Request:
        content = [{"type": "image", "image": picture(1, 112, 112)}, {"type": "text", "text": question}]
        return Request(system=SYSTEM, messages=[{"role": "user", "content": content}], params=PARAMS)

    async def work() -> None:
        async with house.engine(page_tokens=16, prefix_cache=False) as engine:
            alone = [await engine.generate(request(question)) for question in ("Who?", "What is it?")]
        async with house.engine(page_tokens=16) as engine:
            assert [await engine.generate(request(question)) for question in ("Who?", "What is it?")] == alone
            assert engine.statistics()["prefix_hits"] > 16 * 3

    house.run(work())
