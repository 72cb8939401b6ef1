"""What a client does wrong hurts nobody else: wrong messages and media through the real server, with the real engine.

While it happens a second client's reply runs and must come out as if it were alone. Afterwards all pages are free, and
no task, thread or process is left.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import re
import socket
import struct
import threading
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import RawClient, raw_client, run, serving, until
from penstock.actors.engine import Engine
from penstock.codecs.limits import DEFAULT_LIMITS
from penstock.demos.film import make_film
from penstock.engine.config import EngineConfig
from penstock.server.client import Connection, connect
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from PIL import Image
from websockets.exceptions import ConnectionClosed

from tests.fixtures.recipe import model_path

Act = Callable[[Engine, str], Awaitable[None]]
CANARY = "the-canary-of-the-server"


async def bystander(connection: Connection, begun: asyncio.Event | None = None) -> list[int]:
    """One stream from its opening to its end; the tokens of its reply. Sets `begun` with the first of them."""
    pixels = np.random.default_rng(5).integers(0, 255, (2, 84, 84, 3), dtype=np.uint8)
    async with await connection.stream(Request(format="live")) as stream:
        for number, frame in enumerate(pixels):
            await stream.append(VideoFrame(frame, number * 500_000))
        reply = await stream.ask("What is there?", SamplingParams(max_tokens=24))
        ids = []
        async for token in reply:
            ids.append(token.id)
            if begun is not None:
                begun.set()
        return ids


def beside_a_reply(act: Act, config: EngineConfig | None = None, **options: Any) -> None:
    """Run `act(engine, url)` while another client's replies run; see above for what must hold then."""

    async def main() -> None:
        before = set(multiprocessing.active_children())
        async with await Engine.load(model_path("omni"), config=config) as engine:
            async with serving(engine, **options) as url:
                async with connect(url) as connection:
                    alone = await bystander(connection)
                    begun, over = asyncio.Event(), asyncio.Event()

                    async def go_on() -> None:
                        while True:
                            assert await bystander(connection, begun) == alone
                            if over.is_set():
                                return

                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(go_on(), name="bystander")
                        await begun.wait()
                        await act(engine, url)
                        over.set()
                await until(lambda: engine.statistics()["streams"] == 0)
                engine.check()
                numbers = engine.statistics()
                assert numbers["pages_free"] == numbers["pages"]
        assert len(alone) == 24
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("penstock")]
        assert not left, f"expected no thread left, got {left}"
        assert set(multiprocessing.active_children()) <= before

    run(main)


async def usable(client: RawClient, stream: str = "a") -> list[dict[str, Any]]:
    """The stream still takes a question and answers it; gives the messages until then."""
    params = {"max_tokens": 3}
    await client.send(type="ask", stream=stream, question="Still there?", ignore_failed=True, params=params)
    told = await client.receive_until("done", stream=stream)
    assert (told[-1]["reason"], told[-1]["tokens"]) == ("length", 3)
    return told


async def refused(client: RawClient, header: dict[str, Any], payload: bytes, code: str) -> dict[str, Any]:
    """Send media that is not taken; gives the error. Nothing of it reaches the model, and the stream stays usable."""
    await client.send_binary({"stream": "a", "ref": "bad", **header}, payload)
    told = await client.receive_until("error", stream="a")
    error = told[-1]
    assert (error["code"], error["fatal"]) == (code, False), error
    told += await usable(client)
    assert not [message for message in told if message["type"] == "appended"]
    assert error["seq"] == next(message["seq"] for message in told if message.get("ref") == "bad")
    return error


# ---- Messages --------------------------------------------------------------------------------------------------------
def test_messages_that_do_not_follow_the_wire() -> None:
    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            await client.open("a")
            broken: list[tuple[str | bytes, str | None]] = [
                ("{", "$"),
                ("[]", "$"),
                ('{"type": "sing", "stream": "a"}', "$.type"),
                ('{"type": "ask", "stream": 7}', "$.stream"),
                ('{"type": "ask", "stream": "a", "params": {"max_tokens": "many"}}', "$.params.max_tokens"),
                (b"", None),
                (b"\xff\xff{", None),
                (b"\x02\x00[]payload", "$"),
                (struct.pack("<H", 2**16 - 1) + bytes(2**16), "$"),
            ]
            for message, path in broken:
                await client.socket.send(message)
                error = (await client.receive_until("error"))[-1]
                assert (error["code"], error["path"], error["fatal"]) == ("message", path, False)
            await usable(client)

    beside_a_reply(act)


def test_streams_that_are_not_there() -> None:
    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            await client.send(type="ask", stream="nowhere", question="?")
            error = await client.receive()
            assert (error["code"], error["stream"]) == ("unknown_stream", "nowhere")
            await client.open("a", format="live")
            await client.send(type="ask", stream="a", question="?", params={"max_tokens": 500})
            await client.receive_until("token")
            await client.send(type="close", stream="a")
            await client.send_binary({"type": "frame", "stream": "a", "pts_us": 0, "ref": "late"}, picture())
            told = await client.receive_until("error", stream="a")
            assert (told[-1]["code"], told[-1]["ref"]) == ("stream_closed", "late")
            if "closed" not in [message["type"] for message in told]:
                await client.receive_until("closed", stream="a")
            await client.send(type="text", stream="a", text="later still")
            assert (await client.receive_until("error"))[-1]["code"] == "stream_closed"
            await client.open("a")
            await usable(client)

    beside_a_reply(act)


def test_media_behind_the_end_of_the_media() -> None:
    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            await client.open("a")
            await client.send(type="end", stream="a")
            await client.send_binary({"type": "image", "stream": "a", "ref": "late"}, picture())
            error = (await client.receive_until("error"))[-1]
            assert (error["code"], error["ref"], error["fatal"]) == ("input", "late", False)
            await usable(client)

    beside_a_reply(act)


def test_a_question_about_nothing() -> None:
    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            await client.open("a")
            await client.send(type="ask", stream="a", ref="empty")
            error = (await client.receive_until("error"))[-1]
            assert (error["code"], error["fatal"], error["stream"]) == ("input", False, "a")
            await usable(client)

    beside_a_reply(act)


@pytest.mark.parametrize("format", ["turns", "live"])
def test_more_than_the_cache_holds(format: str) -> None:
    rows = 512

    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            await client.open("a", format=format, window=None)
            await client.send(type="text", stream="a", text="word " * 1_500)
            error = (await client.receive_until("error"))[-1]
            assert (error["code"], error["seq"], error["fatal"]) == ("context_overflow", 1, False)
            numbers = [int(number) for number in re.findall("[0-9]+", error["message"])]
            assert rows in numbers and max(numbers) >= 1_500, error["message"]
            await usable(client)
            await client.send(type="ask", stream="a", question="On?", params={"max_tokens": 100_000})
            done = (await client.receive_until("done"))[-1]  # The reply ends where the cache does.
            assert done["reason"] == "length" and 0 < done["tokens"] < rows

    beside_a_reply(act, EngineConfig(kv_tokens=rows))


# ---- Media -----------------------------------------------------------------------------------------------------------
def picture(width: int = 64, height: int = 64) -> bytes:
    """A JPEG."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 40, 40)).save(file, "JPEG")
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A whole PNG of `side` x `side` black pixels, which takes a thousand times its size when it is decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    line = bytes(1 + side // 8)
    rows = b"".join([packer.compress(line) for _ in range(side)]) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


DECODE = pytest.mark.parametrize("decode", ["inline", "workers"])


@DECODE
def test_pictures_that_are_none_or_too_large(decode: str) -> None:
    side = 16_000
    packed = bomb(side)
    assert len(packed) < 100_000

    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            await client.open("a")
            for kind in ("image", "frame"):
                await refused(client, {"type": kind}, b"Once upon a time.", "media_format")
                error = await refused(client, {"type": kind}, packed, "media_limit")
                assert str(DEFAULT_LIMITS.max_pixels) in error["message"] and str(side * side) in error["message"]
            await refused(client, {"type": "image"}, picture()[:300], "media_damaged")
            short = {"type": "frame", "encoding": "rgb24", "width": 64, "height": 64}
            error = await refused(client, short, bytes(100), "media_damaged")
            assert "12288" in error["message"] and "100" in error["message"]

    beside_a_reply(act, EngineConfig(decode=decode))


@DECODE
def test_a_film_that_is_cut_short(decode: str) -> None:
    film = make_film(3.0)

    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            await client.open("a")
            header = {"type": "video", "final": True}
            await refused(client, header, film[:200], "media_damaged")
            await refused(client, header, b"", "media_damaged")
            await client.send_binary({"stream": "a", **header}, film[: len(film) * 2 // 3])
            assert [message for message in await usable(client) if message["type"] == "appended"]
            await client.send_binary({"stream": "a", **header}, film)  # A new file in the same stream.
            assert [message for message in await usable(client) if message["type"] == "appended"]

    beside_a_reply(act, EngineConfig(decode=decode))


def test_sound_that_cannot_be() -> None:
    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            await client.open("a")
            for rate in (0, 1, 2_000_000_000):
                error = await refused(client, {"type": "pcm", "rate": rate}, bytes(3200), "media_limit")
                assert str(rate) in error["message"] and str(DEFAULT_LIMITS.max_rate) in error["message"]
            await refused(client, {"type": "pcm", "rate": 16_000, "channels": 4_000}, bytes(16_000), "media_limit")
            await refused(client, {"type": "audio", "final": True}, b"RIFF????WAVEfmt ", "media_damaged")
            await client.send_binary({"type": "pcm", "stream": "a", "rate": -1}, bytes(3200))
            assert (await client.receive_until("error"))[-1]["path"] == "$.rate"
            await usable(client)

    beside_a_reply(act)


def pointers(film: Path, text: Path) -> dict[str, bytes]:
    """Uploads that point at files of the server: a film that would be played, a text that would be shown."""
    return {
        "ffconcat": f"ffconcat version 1.0\nfile '{film}'\n".encode(),
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{film}\n#EXT-X-ENDLIST\n".encode(),
        "hls-url": f"#EXTM3U\n#EXTINF:2,\nfile://{film}\n#EXT-X-ENDLIST\n".encode(),
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{text}"/></svg>'.encode(),
        "eps": f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({text}) run showpage\n%%EOF".encode(),
    }


@DECODE
def test_uploads_that_point_at_a_file_of_the_server(decode: str, tmp_path: Path) -> None:
    film, text = tmp_path / "film.mp4", tmp_path / "words.txt"
    film.write_bytes(make_film(2.0))
    text.write_text(CANARY)

    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            await client.open("a")
            for upload in pointers(film, text).values():
                for kind in ("image", "frame", "video", "audio"):
                    header = {"type": kind, "final": True} if kind in ("video", "audio") else {"type": kind}
                    error = await refused(client, header, upload, "media_format")
                    assert CANARY not in str(error)

    beside_a_reply(act, EngineConfig(decode=decode))


# ---- Clients that go, and that do not read ---------------------------------------------------------------------------
def test_a_client_that_goes_in_mid_reply() -> None:
    async def act(engine: Engine, url: str) -> None:
        async with raw_client(url) as client:
            for stream in ("a", "b"):
                await client.open(stream, format="live")
                await client.send_binary({"type": "frame", "stream": stream, "pts_us": 0}, picture())
                await client.send(type="ask", stream=stream, question="?", params={"max_tokens": 20_000})
            await client.receive_until("token", stream="b")
            await client.send_binary({"type": "video", "stream": "b"}, make_film(1.0)[:5_000])
            client.socket.transport.abort()
            await until(lambda: engine.statistics()["streams"] <= 1)  # The other client's.

    beside_a_reply(act)


def test_a_client_that_does_not_read() -> None:
    async def act(engine: Engine, url: str) -> None:
        host, port = url.removeprefix("http://").rsplit(":", 1)
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect((host, int(port)))
        async with raw_client(url, sock=narrow, max_queue=1) as client:
            await client.open("a", format="live")
            await client.send(type="ask", stream="a", question="?", params={"max_tokens": 20_000})
            with pytest.raises(ConnectionClosed):
                while True:
                    await client.send(type="ping", ref="x" * 128)
            assert client.socket.close_code in (1006, 1013)
            await until(lambda: engine.statistics()["streams"] <= 1)  # The other client's.

    beside_a_reply(act, unread_bytes=100_000)
