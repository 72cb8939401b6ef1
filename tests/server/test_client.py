"""The client library against a real server: the shape of the in-process stream, and errors by their code."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest
from fake_engine import FakeEngine
from harness import run, serving, until
from penstock.errors import InputError, LimitError, PenstockError, StreamClosedError
from penstock.server.client import connect
from penstock.server.client_stream import ClientStream
from penstock.server.errors import ConnectionLostError, ServerLimitError, error_from_code
from penstock.streams.event import Closed, Error, ReplyDone, Token
from penstock.streams.item import AudioBytes, AudioChunk, Image, Item, Text, VideoBytes, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from websockets.asyncio.server import ServerConnection, serve


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_conversation(loop: str) -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, connect(url) as connection:
            assert connection.welcome.model == "fake"
            async with await connection.stream(Request(system="You watch.", format="live", video_fps=2.0)) as stream:
                assert (stream.id, stream.format, stream.trained) == (1, "live", False)
                assert await stream.append(Text("Look.")) == 1
                reply = await stream.ask("Who?", SamplingParams(max_tokens=4))
                assert reply.seq == 2
                assert [token.text async for token in reply] == ["w0 ", "w1 ", "w2 ", "w3 "]
                assert reply.reason == "length"
                assert await (await stream.ask()).text() == "w0 w1 w2 "
                await stream.end()
                copy = await stream.fork()
                assert await (await copy.ask()).text() == "w0 w1 w2 "
                async with stream.aside("Who?", SamplingParams(max_tokens=2)) as reply:
                    assert await reply.text() == "w0 w1 "
                assert [one.closed for one in engine.streams] == [False, False, True]
            numbers = [event.number async for event in stream]
            assert numbers == list(range(1, len(numbers) + 1))
            assert engine.streams[0].request == Request(system="You watch.", format="live", video_fps=2.0)
            assert engine.streams[0].ended

    run(main, loop)


def test_a_connection_may_be_awaited() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url:
            connection = await connect(url)
            try:
                stream = await connection.stream()
                assert not stream.closed and await (await stream.ask()).text() == "w0 w1 w2 "
                await stream.close()
                assert stream.closed
            finally:
                await connection.close()

    run(main)


def test_what_is_no_penstock_server_is_told_and_left() -> None:
    gone: list[bool] = []

    async def other(socket: ServerConnection) -> None:
        await socket.send("Hello, I am an echo.")
        await socket.wait_closed()
        gone.append(True)

    async def main() -> None:
        async with serve(other, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with pytest.raises(ConnectionLostError, match="expected a welcome of version 1, got 'Hello, I am"):
                await connect(f"ws://127.0.0.1:{port}")
            await until(lambda: bool(gone))

    run(main)


ITEMS: list[tuple[Item, Item]] = [
    (Image(b"file", 7), Image(b"file", 7)),
    (VideoFrame(b"jpeg", 7), VideoFrame(b"jpeg", 7)),
    (
        VideoFrame(np.arange(24, dtype=np.uint8).reshape(2, 4, 3), 7),
        VideoFrame(bytes(range(24)), 7, "rgb24", 4, 2),
    ),
    (VideoBytes(b"", True, 3), VideoBytes(b"", True, 3)),
    (AudioChunk(b"pcm!", 16_000, 5, "s16le", 2), AudioChunk(b"pcm!", 16_000, 5, "s16le", 2)),
    (
        AudioChunk(np.array([[0.0, 1.0], [0.5, -1.0]], dtype=np.float32), 16_000, 5),
        AudioChunk(np.array([0.0, 0.5, 1.0, -1.0], dtype="<f4").tobytes(), 16_000, 5, "f32le", 2),
    ),
    (AudioBytes(b"ogg", False, 3), AudioBytes(b"ogg", False, 3)),
]


def test_every_item_arrives_as_it_was_sent() -> None:
    engine = FakeEngine()

    async def main() -> None:
        async with serving(engine) as url, connect(url) as connection:
            stream = await connection.stream()
            for number, (item, _) in enumerate(ITEMS, 1):
                assert await stream.append(item) == number
            for got, (_, expected) in zip(engine.streams[0].items, ITEMS, strict=True):
                fields = [name for name in expected.__struct_fields__ if name != "data"]
                assert type(got) is type(expected)
                assert [getattr(got, name) for name in fields] == [getattr(expected, name) for name in fields]
                assert bytes(got.data) == bytes(expected.data)  # type: ignore[union-attr]
            with pytest.raises(InputError):
                await stream.append(Image(np.zeros((2, 2, 4), np.uint8)))
            with pytest.raises(InputError):
                await stream.append(VideoFrame(np.zeros((2, 2, 4), np.uint8)))

    run(main)


def test_errors_come_back_as_their_class() -> None:
    engine = FakeEngine()

    def refuse(item: Item) -> None:
        raise LimitError("image: at most 100 pixels, got 101")

    async def main() -> None:
        async with serving(engine, max_streams=1) as url, connect(url) as connection:
            with pytest.raises(InputError, match="refuse me"):
                await connection.stream(Request(system="refuse me"))
            stream = await connection.stream()
            with pytest.raises(ServerLimitError, match="at most 1"):
                await connection.stream()
            engine.refuse = refuse
            with pytest.raises(LimitError, match="at most 100 pixels, got 101"):
                await stream.append(Image(b"x"))
            engine.refuse = None
            with pytest.raises(PenstockError) as caught:
                await stream.ask("?", SamplingParams(max_tokens=0))
            assert caught.value.path == "$.params.max_tokens"  # type: ignore[attr-defined]
            await stream.close()
            await stream.close()
            with pytest.raises(StreamClosedError):
                await stream.append(Text("late"))
            with pytest.raises(StreamClosedError):
                await stream.ask("late")

    run(main)


def test_a_code_from_a_newer_server_is_still_an_error() -> None:
    error = error_from_code("from_the_future", "words")
    assert type(error) is PenstockError and error.code == "from_the_future"
    assert type(error_from_code("internal", "words")) is PenstockError
    assert PenstockError.code == "internal"


def test_a_stream_that_dies_ends_what_waits_on_it() -> None:
    engine = FakeEngine(tokens=100)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(1)
        async with serving(engine) as url, connect(url) as connection:
            stream, other = await connection.stream(), await connection.stream()
            reply = await stream.ask()
            waits = asyncio.create_task(reply.text(), name="text")
            await until(lambda: any(isinstance(event, Token) for event in stream._events))
            engine.hold_append = asyncio.Event()
            appending = asyncio.create_task(stream.append(Text("x")), name="append")
            await connection.ping()
            await engine.streams[0]._stop_replies()
            engine.streams[0].fail("the engine has failed")
            assert await waits == "w0 "  # It was interrupted before.
            with pytest.raises(StreamClosedError):
                await appending
            told = [event async for event in stream]
            assert isinstance(told[-1], Closed) and isinstance(told[-2], Error) and told[-2].fatal
            engine.hold_append.set()
            assert await other.append(Text("x")) == 1

    run(main)


def test_a_lost_connection_ends_everything_that_waits() -> None:
    engine = FakeEngine(tokens=100)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(0)
        async with serving(engine) as url, connect(url, resume=False) as connection:
            stream = await connection.stream()
            reply = await stream.ask()
            reading = asyncio.create_task(reply.text(), name="reading")
            await asyncio.sleep(0)
            connection._socket._socket.transport.abort()
            with pytest.raises(StreamClosedError, match="connection lost"):
                await reading
            assert reply.reason == "error"
            assert [type(event) for event in [event async for event in stream]][-1] is Closed
            with pytest.raises(ConnectionLostError):
                await connection.ping()
            await stream.close()

    run(main)


def test_a_cancelled_call_leaves_the_stream_usable() -> None:
    engine = FakeEngine()

    async def main() -> None:
        engine.hold_append = asyncio.Event()
        async with serving(engine) as url, connect(url) as connection:
            stream = await connection.stream()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await stream.append(Text("1"))
            engine.hold_append.set()
            await stream.append(Text("2"))
            assert engine.streams[0].items[-1] == Text("2")
            reply = await stream.ask()
            assert await reply.text() == "w0 w1 w2 "

    run(main)


def test_interrupt_cuts_the_reply() -> None:
    engine = FakeEngine(tokens=100)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(2)
        async with serving(engine) as url, connect(url) as connection:
            stream = await connection.stream()
            reply = await stream.ask()
            tokens = aiter(reply)
            first = [await anext(tokens), await anext(tokens)]
            await stream.interrupt()
            assert [token async for token in tokens] == [] and reply.reason == "interrupted"
            assert [token.index for token in first] == [0, 1]
            assert await reply.text() == "w0 w1 "
            done = [event async for event in _until_done(stream)]
            assert done[-1].tokens == 2

    run(main)


def test_a_held_reply_has_a_text_once_it_is_interrupted() -> None:
    engine = FakeEngine(tokens=100)

    async def main() -> None:
        engine.gate = asyncio.Semaphore(2)
        async with serving(engine) as url, connect(url) as connection:
            stream = await connection.stream()
            reply = await stream.ask()
            reply.held = True
            with pytest.raises(InputError, match="held open"):
                await reply.text()
            tokens = aiter(reply)
            await anext(tokens)
            await anext(tokens)
            await stream.interrupt()
            assert await reply.text() == "w0 w1 "

    run(main)


async def _until_done(stream: ClientStream) -> AsyncIterator[ReplyDone]:
    async for event in stream:
        if isinstance(event, ReplyDone):
            yield event
            return


@pytest.mark.parametrize("url", ["ftp://localhost", "http://", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="expected HOST:PORT"):
        connect(url)


def test_a_server_that_is_not_there_or_refuses_is_a_connection_error() -> None:
    async def main() -> None:
        async with serving(FakeEngine(), api_key="k") as url:
            with pytest.raises(ConnectionLostError, match="401"):
                async with connect(url):
                    pass
            async with connect(url, api_key="k") as connection:
                await connection.ping()
        with pytest.raises(ConnectionLostError):
            async with connect(url):
                pass

    run(main)


def test_the_client_and_the_help_load_no_model_library() -> None:
    code = (
        "import sys, penstock.server.client, penstock.server.cli\n"
        "try: penstock.server.cli.main(['serve', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'starlette', 'uvicorn', 'av', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)
