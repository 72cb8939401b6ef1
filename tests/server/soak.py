"""Days of two cameras in minutes: a real engine, server and client, over a line that breaks. Only time is a fake: the
engine's clock goes on with the media, and leaps with it.

A `Day` shows pairs of frames and does what a plan says between them. A `Camera` reads all events of its stream and
counts: whatever was shown has to come back as appended or dropped, and every reply that began has to end.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from broken_line import Wire
from harness import until
from penstock.actors import clock
from penstock.actors.engine import Engine
from penstock.server.client import Connection
from penstock.server.client_stream import ClientStream
from penstock.streams.event import Appended, Closed, Dropped, Error, Event, Evicted, ReplyDone, ReplyStarted, Token
from penstock.streams.item import Text, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.requests.window import Window

from tests.reference.media import frames, png

PAIR_US = 20_000_000  # of media time, for a pair of frames
WINDOW = Window(rows=160, text_rows=20)
PICTURES = [png(pixels) for pixels in frames(5, 16)]


class Clock:
    """What the engine takes for `time.monotonic`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.us = 1_000_000
        patch.setattr(clock, "now_us", lambda: self.us)


class Camera:
    """One stream, and what came of what it was shown."""

    def __init__(self, talk: ClientStream) -> None:
        self.talk = talk
        self.shown = 0  # frames
        self.arrived: Counter[str] = Counter()  # frames by what became of them
        self.replies: dict[int, int] = {}  # that run, with how many tokens have come
        self.counts: Counter[str] = Counter()
        self.number, self.row, self.media_us = 0, 0, 0
        self.reader = asyncio.create_task(self._read())

    async def show(self) -> None:
        """A pair of frames."""
        for _ in range(2):
            await self.talk.append(VideoFrame(PICTURES[self.shown % len(PICTURES)], pts_us=self.media_us))
            self.shown += 1
            self.media_us += PAIR_US // 2

    async def settled(self) -> None:
        """Wait until something has become of all frames, but for one that may wait for a second one."""
        await until(lambda: self.shown - self.arrived.total() <= 1 or self.reader.done())

    async def _read(self) -> None:
        async for event in self.talk:
            self._take(event)

    def _take(self, event: Event) -> None:
        self.counts[type(event).__name__] += 1
        assert event.number == self.number + 1, f"event {self.number + 1} is missing before {event}"
        self.number = event.number
        match event:
            case Appended(row=row, rows=rows):
                self.arrived["appended"] += 2
                assert row >= self.row, f"rows {row} after {self.row}"
                self.row = row + rows
            case Dropped(count=count, reason=reason):
                self.arrived[reason] += count
            case Evicted(row=row, rows=rows):
                assert row + rows <= self.row
            case ReplyStarted(reply=reply):
                assert reply not in self.replies
                self.replies[reply] = 0
            case Token(reply=reply, index=index):
                assert self.replies[reply] == index
                self.replies[reply] += 1
            case ReplyDone(reply=reply, tokens=tokens):
                assert self.replies.pop(reply) >= tokens
            case Error():
                raise AssertionError(event)
            case Closed():
                assert not self.replies


class Day:
    """Two cameras, and all that happens beside them."""

    def __init__(self, engine: Engine, connection: Connection, wire: Wire, time: Clock, seed: int) -> None:
        self.engine, self.connection, self.wire, self.clock = engine, connection, wire, time
        self.random = random.Random(seed)
        self.cameras: list[Camera] = []
        self.did: Counter[str] = Counter()

    async def open(self) -> None:
        """One camera is taken in whole, the other as it comes, and tells what it sees."""
        for format, policy in (("turns", "block"), ("live", "latest")):
            request = Request(format=format, policy=policy, video_fps=0.1, window=WINDOW)
            self.cameras.append(Camera(await self.connection.stream(request)))

    async def live(self, pairs: int, times: int, acts: dict[str, Act]) -> None:
        """Show so many pairs, and do each of `acts` so often, at random places."""
        plan: dict[int, list[str]] = {}
        for name in acts:
            for place in self.random.sample(range(pairs), times):
                plan.setdefault(place, []).append(name)
        for place in range(pairs):
            self.clock.us += PAIR_US
            await asyncio.gather(*(camera.show() for camera in self.cameras))
            for name in plan.get(place, ()):
                await acts[name](self, self.random.choice(self.cameras))
                self.did[name] += 1
            await asyncio.gather(*(camera.settled() for camera in self.cameras))

    async def close(self) -> None:
        """End the cameras; what their events said has to fit together."""
        for camera in self.cameras:
            await camera.talk.close()
            await camera.reader
            assert camera.shown - camera.arrived.total() <= 1 and not camera.replies, camera.counts


Act = Callable[[Day, Camera], Awaitable[None]]


def most(tokens: int) -> SamplingParams:
    """A reply of just so many tokens."""
    return SamplingParams(max_tokens=tokens, ignore_eos=True)


async def ask(day: Day, camera: Camera) -> None:
    reply = await camera.talk.ask("What do you see?", most(6))
    assert len([token async for token in reply]) == 6 and reply.reason == "length"


async def interrupt(day: Day, camera: Camera) -> None:
    reply = await camera.talk.ask("Tell me all.", most(400))
    tokens = aiter(reply)
    for _ in range(day.random.randrange(1, 6)):
        await anext(tokens)
    await camera.talk.interrupt()
    async for _ in tokens:
        pass
    assert reply.reason == "interrupted"


async def aside(day: Day, camera: Camera) -> None:
    """While the camera speaks and is shown on."""
    narration = await camera.talk.ask("Go on.", most(40))
    showing = asyncio.create_task(camera.show())
    async with camera.talk.aside("Who is it?", most(5)) as reply:
        assert len([token async for token in reply]) == 5
    await showing
    assert len([token async for token in narration]) == 40


async def snapshot(day: Day, camera: Camera) -> None:
    """What is restored answers as a copy does."""
    await camera.settled()
    async with camera.talk.aside("Who is it?", most(5)) as reply:
        answer = [token.id async for token in reply]
    await camera.talk.snapshot("camera")
    async with await day.connection.restore("camera") as again:
        said = [token.id async for token in await again.ask("Who is it?", most(5))]
    assert len(said) == 5 and said == answer


async def lose(day: Day, camera: Camera) -> None:
    """The connection breaks while a reply is spoken and frames are on their way."""
    asked = asyncio.create_task(ask(day, camera))
    await asyncio.sleep(day.random.random() * 0.02)
    day.wire.cut()
    await asked


async def leap(day: Day, camera: Camera) -> None:
    """The machine slept for hours, or the camera's clock was set back or forward."""
    hours = day.random.choice([-0.1, 0.2, 5.0])
    camera.media_us = max(0, camera.media_us + round(hours * 3.6e9))
    day.clock.us += round(day.random.choice([0.0, 7.0]) * 3.6e9)


async def crowd(day: Day, camera: Camera) -> None:
    """Others need more pages than there are: streams make room, and come back."""
    async with await day.connection.stream(Request(format="turns")) as other:
        await other.append(Text("door " * 400))
        replies = [await one.ask("Well?", most(20)) for one in (other, *(each.talk for each in day.cameras))]
        day.did["pages moved"] += day.engine.statistics()["pages_host"]
        for reply in replies:
            assert len([token async for token in reply]) == 20


# What happens beside the cameras, each as often as the others.
ACTS: dict[str, Act] = {
    "ask": ask,
    "interrupt": interrupt,
    "aside": aside,
    "snapshot": snapshot,
    "lose": lose,
    "leap": leap,
    "crowd": crowd,
}


def at_rest(engine: Engine, streams: int) -> bool:
    """Nothing runs, and all actors know that the other streams have ended."""
    numbers = engine.statistics()
    open_ones = {numbers[name] for name in ("streams", "streams_decode", "streams_encode")}
    return not numbers["stepping"] and open_ones == {streams}


def consistent(engine: Engine, streams: int) -> dict[str, Any]:
    """The engine's numbers, which fit together; call when nothing runs."""
    engine.check()
    numbers = engine.statistics()
    assert len(numbers["bytes_by_stream"]) == len(numbers["window_by_stream"]) == streams
    assert all(one["rows"] <= WINDOW.rows for one in numbers["window_by_stream"].values())
    assert numbers["segments_waiting"] == 0
    return numbers
