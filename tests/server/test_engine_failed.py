"""A failed engine ends its server, once the clients have been told; the words of the failure stay in the log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_engine import FakeEngine
from harness import get, raw_client, run
from penstock.actors.engine import Engine
from penstock.server import cli
from penstock.server.app import bind, serve
from penstock.server.config import ServerConfig
from penstock.server.errors import EngineFailedError
from websockets.exceptions import ConnectionClosed, InvalidStatus

SECRET = "CUDA error at /home/someone/secret.py"


class Server:
    """A server for a fake engine as a task; `failed` waits for its end."""

    def __init__(self, **options: Any) -> None:
        self.engine = FakeEngine()
        self._config = ServerConfig(port=0, **options)
        self._listener = bind(self._config)

    async def __aenter__(self) -> Server:
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(
            serve(self.engine, self._config, listener=self._listener, on_listening=told.set_result),  # type: ignore[arg-type]
            name="server",
        )
        self.url = await told
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        self._listener.close()


def test_clients_are_told_and_the_server_ends() -> None:
    async def main() -> None:
        async with Server() as server:
            server.engine.gate = asyncio.Semaphore(1)
            async with raw_client(server.url) as client:
                await client.open("a")
                await client.send(type="ask", stream="a")
                await client.receive_until("token")
                server.engine.fail(RuntimeError(SECRET))
                told = await client.receive_until("closed")
                assert told[-2]["type"] == "error" and told[-2]["fatal"]
                with pytest.raises(ConnectionClosed):
                    await client.receive()
                assert (client.socket.close_code, client.socket.close_reason) == (1011, "the engine has failed")
                assert SECRET not in str(told)
            with pytest.raises(EngineFailedError) as ended:
                await server.task
            assert SECRET in str(ended.value.__cause__)

    run(main)


def test_a_server_that_stays_refuses_with_the_reason() -> None:
    async def main() -> None:
        async with Server(stay=True) as server, raw_client(server.url) as client:
            server.engine.fail(RuntimeError(SECRET))
            for path in ("/health", "/ready", "/v1/access"):
                status, body = await get(server.url, path)
                assert status == 503 and "failed" in str(body) and SECRET not in str(body)
            with pytest.raises(InvalidStatus) as refused:
                async with raw_client(server.url):
                    pass
            response = refused.value.response
            assert response.status_code == 503
            assert b"the engine has failed" in (response.body or b"") and SECRET.encode() not in (response.body or b"")
            await client.send(type="open", stream="a")
            error = (await client.receive_until("error"))[-1]
            assert error["message"] == "the engine has failed"
            assert not server.task.done()

    run(main)


def test_the_command_ends_with_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(FakeEngine):
        async def __aenter__(self) -> Broken:
            self.fail(RuntimeError(SECRET))
            return self

        async def __aexit__(self, *_: object) -> None:
            await self.close()

    async def load(*_: Any, **__: Any) -> Broken:
        return Broken()

    monkeypatch.setattr(Engine, "load", load)
    monkeypatch.setattr(cli, "_facts", lambda *_: [])
    assert cli.main(["serve", "--port", "0"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"penstock: error: the engine has failed: RuntimeError: {SECRET}"
