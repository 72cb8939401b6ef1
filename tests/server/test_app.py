"""Who gets in, what the health routes say, and how the server goes down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import harness
import pytest
from fake_engine import FakeEngine, FakeInfo
from harness import get, raw_client, run, serving, until
from penstock.actors.engine import Engine
from penstock.demos.film import draw
from penstock.server.access import origin_allowed
from penstock.server.app import bind
from penstock.server.client import Connection, connect
from penstock.server.client_stream import ClientReply
from penstock.server.config import ServerConfig
from penstock.server.errors import ConfigError
from penstock.server.routes import create_app
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "localhost:8000", True),
        ("http://localhost:8000", "localhost:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://localhost", "localhost:80", True),
        ("https://friend.example", "localhost:8000", True),
        ("http://localhost:8001", "localhost:8000", False),
        ("http://evil.example", "localhost:8000", False),
        ("http://evil.example:8000", "evil.example:8000", False),  # A foreign name that points at this machine.
        ("http://localhost.evil.example:8000", "localhost:8000", False),
        ("null", "localhost:8000", False),
        ("file://", "localhost:8000", False),
        ("http://localhost:x", "localhost:8000", False),
        ("", "localhost:8000", False),
    ],
)
def test_only_the_own_origin_and_the_allowed_ones_connect(origin: str | None, host: str, allowed: bool) -> None:
    config = ServerConfig(allow_origins=("https://friend.example/",))
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert origin_allowed(headers, config) is allowed


def test_a_public_server_takes_its_own_name_as_origin() -> None:
    config = ServerConfig(host="0.0.0.0", api_key="k")
    assert origin_allowed({"host": "my.example:8000", "origin": "http://my.example:8000"}, config)
    assert not origin_allowed({"host": "my.example:8000", "origin": "http://evil.example:8000"}, config)


def test_a_token_does_not_wait_for_the_one_before_it() -> None:
    with bind(ServerConfig(port=0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def refused(url: str, **options: Any) -> int:
    """The status with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with raw_client(url, **options):
            pass
    return caught.value.response.status_code


def test_a_foreign_page_gets_403_also_on_localhost() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url:
            assert await refused(url, origin=Origin("http://evil.example")) == 403
            async with raw_client(url, origin=Origin(url)):
                pass

    run(main)


def test_a_key_is_wanted_in_the_header_or_as_a_subprotocol() -> None:
    async def main() -> None:
        async with serving(FakeEngine(), api_key="s3cret") as url:
            assert await refused(url) == 401
            assert await refused(url, additional_headers={"Authorization": "Bearer s3cre"}) == 401
            assert await refused(url, additional_headers={"Authorization": "Basic s3cret"}) == 401
            assert await refused(url, subprotocols=[Subprotocol("penstock.key.wrong")]) == 401
            async with raw_client(url, additional_headers={"Authorization": "Bearer s3cret"}):
                pass
            offered = [Subprotocol("penstock.v1"), Subprotocol("penstock.key.s3cret")]
            async with raw_client(url, subprotocols=offered) as client:
                assert client.socket.subprotocol == "penstock.v1"

    run(main)


def test_connections_streams_and_sizes_are_limited() -> None:
    async def main() -> None:
        options = {"max_connections": 1, "max_streams": 1, "max_message_bytes": 10_000, "max_text_bytes": 1_000}
        async with serving(FakeEngine(), **options) as url, raw_client(url) as client:
            assert await refused(url) == 503
            await client.open("a")
            await client.send(type="open", stream="b")
            assert (await client.receive())["code"] == "server_limit"
            await client.send(type="text", stream="a", text="x" * 1_000)
            assert (await client.receive())["code"] == "server_limit"
            await client.socket.send(bytes(10_001))
            with pytest.raises(ConnectionClosed):
                await client.receive()
            assert client.socket.close_code == 1009

    run(main)


def test_health_and_ready() -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("a")
            status, body = await get(url, "/health")
            assert (status, body["status"], body["connections"], body["streams"]) == (200, "ok", 1, 1)
            assert body["engine"] == {"streams": 1}
            assert (await get(url, "/ready"))[0] == 200
            engine.ready = False
            assert (await get(url, "/ready"))[0] == 503

    run(main)


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "192.168.1.4"},
        {"api_key": " "},
        {"tls_cert": "cert.pem"},
        {"port": 65_536},
        {"max_streams": 0},
        {"idle_seconds": -1.0},
    ],
)
def test_a_bad_configuration_is_refused_before_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        create_app(FakeEngine(), ServerConfig(**options))  # type: ignore[arg-type]


def test_a_configuration_does_not_show_its_key() -> None:
    assert "s3cret" not in repr(ServerConfig(api_key="s3cret"))


@contextlib.asynccontextmanager
async def draining(engine: FakeEngine | Engine, **options: Any) -> AsyncIterator[Any]:
    """A server whose app can be drained without a signal: (url, drain)."""
    made: list[Any] = []

    def create_and_keep(*arguments: Any) -> Any:
        made.append(create_app(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.server.app.create_app", create_and_keep)
        async with serving(engine, **options) as url:
            yield url, made[0].state.service.drain


def test_a_drain_lets_the_running_reply_finish_and_takes_nothing_new() -> None:
    engine = FakeEngine(tokens=2)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with draining(engine) as (url, drain), raw_client(url) as client:
            await client.open("a")
            await client.send(type="ask", stream="a")
            await client.receive_until("reply")
            ending = asyncio.create_task(drain(), name="drain")
            await asyncio.sleep(0)
            assert (await get(url, "/ready"))[0] == 503
            assert (await get(url, "/health"))[1]["status"] == "draining"
            assert await refused(url) == 503
            await client.send(type="open", stream="b")
            assert (await client.receive_until("error"))[-1]["code"] == "draining"
            await client.send(type="ask", stream="a")
            assert (await client.receive_until("error"))[-1]["code"] == "draining"
            await client.send(type="text", stream="a", text="media still comes", ref="t")
            assert (await client.receive_until("accepted", ref="t"))[-1]["seq"] == 2
            engine.gate.release()
            engine.gate.release()
            told = await client.receive_until("closed")
            assert [message["type"] for message in told if message["type"] != "appended"] == [
                "token",
                "token",
                "done",
                "closed",
            ]
            with pytest.raises(ConnectionClosed):
                await client.receive()
            assert client.socket.close_code == 1012
            await ending

    run(main)


def test_a_drain_does_not_wait_for_ever() -> None:
    engine = FakeEngine()

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with draining(engine, drain_seconds=0.1) as (url, drain), raw_client(url) as client:
            await client.open("a")
            await client.send(type="ask", stream="a")
            await client.receive_until("reply")
            await drain()
            told = await client.receive_until("closed")
            assert told[-2]["reason"] == "interrupted"
            assert not engine.open

    run(main)


def test_a_drain_tells_a_stream_that_still_opens_that_no_media_will_come() -> None:
    engine = FakeEngine(tokens=2)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with draining(engine) as (url, drain), raw_client(url) as client:
            await client.open("a")
            await client.send(type="ask", stream="a")
            await client.receive_until("reply")
            engine.hold_open = asyncio.Event()
            await client.send(type="open", stream="b")
            await client.send(type="ping")
            await client.receive_until("pong")
            ending = asyncio.create_task(drain(), name="drain")
            await until(lambda: engine.streams[0].ended)
            engine.hold_open.set()
            await client.receive_until("opened")
            await until(lambda: engine.streams[1].ended)
            engine.gate.release()
            engine.gate.release()
            await client.receive_until("closed")
            await ending

    run(main)


def test_a_drain_ends_replies_that_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "DEADLINE_SECONDS", 60.0)  # Beside other work, Brook takes a while to load.

    async def rests(connection: Connection, format: str) -> ClientReply:
        stream = await connection.stream(Request(format=format))
        for number in range(4):
            await stream.append(VideoFrame(draw(0.0), number * 500_000))
        reply = await stream.ask("What do you see?", SamplingParams(hold=True, max_tokens=4000))
        async for token in reply:
            if token.text.endswith("."):  # It has said it all, and rests until something comes.
                break
        return reply

    async def main() -> None:
        async with await Engine.load() as engine:
            async with draining(engine, drain_seconds=60) as (url, drain), connect(url) as connection:
                replies = [await rests(connection, format) for format in ("live", "per-frame", "units")]
                async with asyncio.timeout(5):
                    await drain()
                for reply in replies:
                    assert "circle" in await reply.text() and reply.reason == "stop"

    run(main)


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("org/name", "org/name"),
        ("org/name@v1.0", "org/name@v1.0"),
        ("/srv/secret/llama", "llama"),
        ("/srv/secret/llama/", "llama"),
        ("secret/llama", "llama"),
        ("./secret/llama", "llama"),
        ("secret/deep/llama", "llama"),
        ("../llama", "llama"),
        ("~/llama", "llama"),
    ],
)
def test_a_client_is_told_no_path_of_the_server(
    model: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret" / "llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        engine = FakeEngine()
        engine.info = FakeInfo(model=model)
        async with serving(engine) as url, raw_client(url) as client:
            assert client.welcome["model"] == shown

    run(main)


def test_the_log_has_a_line_per_start_and_end_and_never_words(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, raw_client(url) as client:
            await client.open("name-of-mine", system="secret system")
            await client.send(type="text", stream="name-of-mine", text="secret words")
            await client.send(type="ask", stream="name-of-mine", question="secret question")
            await client.receive_until("done")
            await client.send(type="close", stream="name-of-mine")
            await client.receive_until("closed")

    with caplog.at_level(logging.DEBUG, "penstock"):
        run(main)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("penstock")]
    assert sum(line.startswith("stream start") for line in lines) == 1
    (end,) = [line for line in lines if line.startswith("stream end")]
    assert "inputs=1" in end and "replies=1" in end and "tokens=3" in end
    assert not any("secret" in line or "w0" in line or "mine" in line for line in lines)


def test_no_stream_outlives_the_server() -> None:
    engine = FakeEngine(tokens=10_000)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(1)
        async with contextlib.AsyncExitStack() as after:
            async with serving(engine) as url:
                client = await after.enter_async_context(raw_client(url))
                await client.open("a")
                await client.send(type="ask", stream="a")
                await client.receive_until("token")
            assert not engine.open

    run(main)
