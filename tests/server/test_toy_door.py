"""A second door: another vocabulary over the same session, by itself and over a real WebSocket.

A client says `{"say": "..."}`, `{"frame": "<base64 of a picture>"}` or `{"stop": true}`, and is told `{"word": "..."}`,
`{"over": "<reason>"}` or `{"wrong": "..."}`. It has one talk, which begins by itself and which it need not name.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import harness
import pytest
from fake_engine import FakeEngine
from harness import get, raw_client, run, running_engine, serving
from penstock.demos.film import draw
from penstock.server import commands as c
from penstock.server import routes
from penstock.server.config import ServerConfig
from penstock.server.errors import MessageError
from penstock.server.session import Session
from penstock.streams.event import Error, ReplyDone, Token
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect

PATH = "/v1/toy"
ASKED = SamplingParams(max_tokens=8)


class ToyDoor:
    """The door."""

    subprotocol = None

    def __init__(self, info: Any, config: ServerConfig, query: Any = None) -> None:
        self._formats = info.formats

    def greet(self) -> Iterator[c.Command]:
        yield c.OpenStream(stream="talk", request=Request(format=self._formats[0], params=ASKED))

    def hear(self, message: str | bytes) -> Iterator[c.Command]:
        try:
            heard = json.loads(message)
        except ValueError:
            raise MessageError(f"expected JSON, got {message[:20]!r}") from None
        match heard:
            case {"say": str(words)}:
                yield c.AskQuestion(stream="talk", question=words, size=len(message))
            case {"frame": str(file)}:
                yield c.AppendItem(stream="talk", item=VideoFrame(base64.b64decode(file)), size=len(message))
            case {"stop": True}:
                yield c.InterruptReply(stream="talk")
            case other:
                raise MessageError(f"expected say, frame or stop, got {other!r:.40}")

    def tell(self, answer: c.Answer) -> Iterator[bytes]:
        match answer:
            case c.StreamEvent(event=Token(text=text)):
                yield json.dumps({"word": text}).encode()
            case c.StreamEvent(event=ReplyDone(reason=reason)):
                yield json.dumps({"over": reason}).encode()
            case c.Refused(message=message) | c.StreamEvent(event=Error(message=message)):
                yield json.dumps({"wrong": message}).encode()


def test_a_door_is_tried_without_a_socket_and_without_an_engine() -> None:
    session, door = Session(max_streams=1, waiting_bytes=100), ToyDoor(FakeEngine().info, ServerConfig())
    for command in door.greet():
        session.take(command)
    (begin,) = session.actions()
    assert isinstance(begin, c.Begin)
    session.opened(begin.job, c.StreamFacts(id=1, format="turns", why="asked for", trained=False))
    for message in ({"say": "Who?"}, {"stop": True}, {"say": "x" * 100}):
        for command in door.hear(json.dumps(message)):
            session.take(command)
    (_, ask, interrupt, refused) = session.actions()
    assert isinstance(ask, c.Carry) and isinstance(ask.command, c.AskQuestion) and ask.command.question == "Who?"
    assert isinstance(interrupt, c.Carry) and isinstance(interrupt.command, c.InterruptReply)
    assert isinstance(refused, c.Refused)
    (told,) = door.tell(refused)
    assert b"at most 100 bytes may wait" in told
    session.event(begin.channel, Token(1, 0, 5, "Me", None))
    (heard,) = session.actions()
    assert isinstance(heard, c.StreamEvent) and list(door.tell(heard)) == [b'{"word": "Me"}']


@contextlib.asynccontextmanager
async def toy_client(engine: Any, **options: Any) -> AsyncIterator[tuple[str, ClientConnection]]:
    """A server that has the toy door beside its own, and a client of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(routes.DOORS, PATH, ToyDoor)
        async with serving(engine, **options) as url:
            async with connect(url.replace("http", "ws", 1) + PATH, proxy=None) as socket:
                yield url, socket


async def said(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def heard(socket: ClientConnection, *kinds: str) -> list[Any]:
    """All messages up to the first of one of these kinds."""
    messages: list[Any] = []
    while not messages or not set(kinds) & set(messages[-1]):
        messages.append(json.loads(await socket.recv()))
    return messages


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_talk_over_a_real_socket(loop: str) -> None:
    """A question is answered, a running reply is cut, what is wrong is refused, and the rest goes on."""
    engine = FakeEngine(tokens=3)

    async def main() -> None:
        async with toy_client(engine, waiting_bytes=200) as (url, socket):
            for wrong in ({"sing": "x"}, {"say": "x" * 200}):
                await said(socket, **wrong)
                assert "wrong" in (await heard(socket, "wrong"))[-1]
            engine.gate = asyncio.Semaphore(1)
            await said(socket, say="Who?")
            assert await heard(socket, "word") == [{"word": "w0 "}]
            await said(socket, stop=True)
            assert await heard(socket, "over") == [{"over": "interrupted"}]
            async with raw_client(url) as other:  # The server's own door stands open beside it.
                await other.open("a")
                assert (await get(url, "/health"))[1]["streams"] == 2
            await said(socket, frame=base64.b64encode(b"a picture").decode())
            engine.gate = None
            await said(socket, say="And now?")
            words = await heard(socket, "over")
            assert [message.get("word") for message in words[:-1]] == ["w0 ", "w1 ", "w2 "]
            assert words[-1] == {"over": "length"}
        assert not engine.open
        (item,) = engine.streams[0].items
        assert isinstance(item, VideoFrame) and item.data == b"a picture"

    run(main, loop)


def test_a_real_engine_answers_at_the_toy_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "DEADLINE_SECONDS", 60.0)  # Beside other work the model takes a while to load.
    file = io.BytesIO()
    Image.fromarray(draw(0.0)).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()

    async def main() -> None:
        async with running_engine("real") as engine, toy_client(engine) as (_, socket):
            for _ in range(2):
                await said(socket, frame=picture)
            await said(socket, frame=base64.b64encode(b"no picture").decode())
            assert "wrong" in (await heard(socket, "wrong"))[-1]
            await said(socket, say="What do you see?")
            told = await heard(socket, "over")
            assert any(message.get("word") for message in told) and told[-1]["over"] in ("stop", "length")

    run(main)
