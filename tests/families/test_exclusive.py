"""Kinds of media that are other rows beside one another: a stream takes one of them, a request's own prompt both."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.errors import InputError
from penstock.streams.event import Appended, Error
from penstock.streams.item import AudioChunk, Image
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import run_in
from tests.actors.watch import Reader, until
from tests.engine.test_oracle1 import assert_equal, generated, turn
from tests.families.refusals import phi4_multimodal
from tests.families.suite import MEDIA, Tried, asked, by_library, opened

PICTURE, SOUND = Image(MEDIA["image"][0]), AudioChunk(MEDIA["audio"][0][None], 16_000)
WHAT = SamplingParams(max_tokens=4)
SEEN = Request(messages=[turn(("image", MEDIA["image"][0]), "What?")], params=WHAT)
REFUSED = "expected none in a stream that has had"


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return opened(phi4_multimodal(tmp_path_factory.mktemp("phi4")))


def test_a_prompt_takes_both(tried: Tried) -> None:
    sound, picture = (("audio", MEDIA["audio"][0]), ("image", MEDIA["image"][0]))
    for parts in ((sound, picture), (picture, sound, sound)):
        request, inputs = asked(tried, *parts)
        assert_equal(generated(tried.loaded, request), by_library(tried, inputs))


@pytest.mark.parametrize(
    ("request_", "items", "refused"),
    [
        (Request(), [SOUND, PICTURE], "image"),
        (Request(), [PICTURE, SOUND], "audio"),
        (SEEN, [SOUND], "audio"),
    ],
    ids=["sound first", "picture first", "a picture in the prompt"],
)
def test_a_stream_takes_the_kind_that_came_first(
    tried: Tried, request_: Request, items: list[Any], refused: str
) -> None:
    """The other one is refused, and the stream goes on as if it had not come. Sound that waited for more fails the
    question that lets it in."""

    async def work() -> None:
        async with Engine(tried.loaded, EngineConfig(kv_tokens=8192)) as engine:
            said = []
            for more in (items, items[:-1]):
                async with await engine.stream(request_) as stream:
                    reader = Reader(stream)
                    for item in more:
                        await stream.append(item)
                    errors = []
                    try:
                        reply = await stream.ask("Well?", WHAT, ignore_failed=True)
                    except InputError as error:
                        errors = [str(error)]
                        reply = await stream.ask("Well?", WHAT, ignore_failed=True)
                    said.append(await reply.text())
                    errors = errors or [error.message for error in reader.of(Error)]
                    assert [message.split(":")[0] for message in errors] == ([refused] if more is items else [])
                    assert all(REFUSED in message for message in errors)
            assert said[0] == said[1]

    run_in(asyncio.new_event_loop, work())


def test_a_copy_of_a_stream_takes_no_other_kind_either(tried: Tried) -> None:
    async def work() -> None:
        async with Engine(tried.loaded, EngineConfig(kv_tokens=8192)) as engine:
            async with await engine.stream(Request()) as stream:
                reader = Reader(stream)
                await stream.append(SOUND)
                await (await stream.ask("Well?", WHAT)).text()
                await until(lambda: bool(reader.of(Appended)))
                async with await stream.fork() as twin:
                    await twin.append(PICTURE)
                    with pytest.raises(InputError, match=REFUSED):
                        await twin.ask("And?", WHAT)

    run_in(asyncio.new_event_loop, work())
