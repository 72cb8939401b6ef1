"""What is at the address of an encoder and is none, or does not answer."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest
from encoder_process import EncoderProcess, Slow, towers_of
from penstock.actors import remote
from penstock.actors.engine import Engine
from penstock.errors import ModelError
from penstock.streams.item import Image
from penstock.streams.requests.request import Request
from test_encode_service import SHORT, TEXT, setup
from websockets.asyncio.server import ServerConnection, serve

from tests.actors.watch import until
from tests.fixtures.recipe import model_path
from tests.reference.media import picture


@pytest.mark.parametrize("said", [b"hello", "hello"])
def test_something_else_at_the_address_is_no_encoder(said: bytes | str) -> None:
    """It is told as one that is away, and its connection is ended."""
    ended: list[int] = []

    async def other(socket: ServerConnection) -> None:
        await socket.send(said)
        await socket.wait_closed()
        ended.append(1)

    async def work() -> None:
        async with serve(other, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            config = msgspec.structs.replace(setup(f"ws://127.0.0.1:{port}"), encoder_seconds=0.1)
            with pytest.raises(ModelError, match="expected an encoder to say what it has"):
                await Engine.load(model_path("omni"), config=config)
        assert ended

    asyncio.run(asyncio.wait_for(work(), 20))


def test_an_address_that_does_not_answer_holds_up_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that takes connections and says nothing: who asks for media waits, and goes on with the encoder."""
    monkeypatch.setattr(remote, "_OPEN_SECONDS", 60.0)

    async def work() -> None:
        process = EncoderProcess()
        await process.start(towers_of("omni"))
        async with await Engine.load(model_path("omni"), config=setup(process.url)) as engine:
            async with await engine.stream(Request(format="turns")) as stream:
                await process.end()
                with socket.create_server(("127.0.0.1", int(process.url.rsplit(":", 1)[1]))) as deaf:
                    await stream.append(Image(picture(1, 70, 90)))
                    asking, _ = await asyncio.to_thread(deaf.accept)
                    with asking:
                        assert await asyncio.wait_for(engine.generate(TEXT), 10)
                        assert engine.statistics()["encoder"]["held"] == 1
                await process.start(towers_of("omni"))
                assert await (await stream.ask("What is it?", SHORT)).text()
        await process.end()

    asyncio.run(work())


def test_an_encoder_that_gives_no_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it answers pings: it is given up, and has the question once more."""
    slow = Slow(towers_of("omni").towers)

    async def work() -> None:
        process = EncoderProcess()
        await process.start(towers_of("omni")._replace(towers=slow))
        async with await Engine.load(model_path("omni"), config=setup(process.url)) as engine:
            async with await engine.stream(Request(format="turns")) as stream:
                with monkeypatch.context() as patch:
                    patch.setattr(remote, "_ANSWER_SECONDS", 0.2)
                    await stream.append(Image(picture(1, 70, 90)))
                    await until(lambda: engine.statistics()["encoder"]["lost"] > 0)
                slow.go.set()
                assert await (await stream.ask("What is it?", SHORT)).text()
        await process.end()

    asyncio.run(asyncio.wait_for(work(), 40))
