"""What is at the address of an encoder and is none."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from penstock.actors.engine import Engine
from penstock.errors import ModelError
from test_encode_service import setup
from websockets.asyncio.server import ServerConnection, serve

from tests.fixtures.recipe import model_path


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
